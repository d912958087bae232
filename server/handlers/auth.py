"""Register and log in."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, cast

import structlog

from server.api.operations import Operation
from server.database import DatabaseUnavailable, UniqueViolation
from server.errors import EmailTaken, InvalidCredentials, ServiceUnavailable
from server.handlers.base import BaseHandler
from server.queries import users
from server.values import EMAIL_LENGTH, fold_email, normalise_email

if TYPE_CHECKING:
    from server.queries.users import User

log = structlog.get_logger()


class AuthHandler(BaseHandler):
    """A public handler whose attempts are counted, each ``action`` apart, over both contracts together."""

    action: str

    async def check_rate_limit(self) -> None:
        """Count the attempt.

        Raises:
            TooManyRequests: if the client's address has made too many.
        """
        await self.services.rate_limiter.count_attempt(self.action, self.client_address)

    def send_session(self, user: User, status: int) -> None:
        """Respond with a token and its user."""
        token = self.services.tokens.issue(user.id, user.email)
        self.send_json({"token": token, "user": {"id": user.id, "email": user.email}}, status)


class RegisterHandler(AuthHandler):
    """``POST /api/auth/signup``, ``POST /auth/register``."""

    action = "register"

    @Operation(
        name="signUp", body="{contract}/register.json", status=201, response="session.json", errors=(EmailTaken,)
    )
    async def post(self) -> None:
        """Register an account (FR-007 to FR-012).

        The response has a token: a new user need not log in.
        """
        body = await self.json_body()
        email = cast("str", normalise_email(body["email"]))  # the schema asks for an email
        password_hash = await self.services.passwords.hash(body["password"])
        try:
            user = await users.create(self.database, email, password_hash)
        except UniqueViolation:
            raise EmailTaken from None
        self.send_session(user, 201)


class LoginHandler(AuthHandler):
    """``POST /api/auth/login``, ``POST /auth/login``."""

    action = "login"

    @Operation(name="logIn", body="login.json", response="session.json", errors=(InvalidCredentials,))
    async def post(self) -> None:
        """Log in to an account (FR-013 to FR-017).

        After too many failed logins on an email, a login with the right password is a 429 too.
        """
        body = await self.json_body()
        email = normalise_email(body["email"])
        account = fold_email(email or body["email"][:EMAIL_LENGTH])
        # Before the account's turn: while the database is unavailable, logins would wait for each other's deadlines.
        user = await users.get_by_email(self.database, email) if email else None
        async with self.services.rate_limiter.login_turn(account, self.client_address):
            if not await self.services.passwords.verify(body["password"], user and user.password_hash):
                await self.services.rate_limiter.count_failed_login(account)
                reason = "wrong_password" if user else "unknown_email"
                log.warning("login_failed", reason=reason, remote_ip=self.client_address)
                raise InvalidCredentials
        assert user is not None  # noqa: S101  # verify() returns False when user is None
        if self.services.passwords.is_outdated(user.password_hash):
            await self.renew_hash(user, body["password"])
        self.send_session(user, 200)

    async def renew_hash(self, user: User, password: str) -> None:
        """Hash the password at the configured cost; without the time or the database for it, the next login does."""
        with suppress(ServiceUnavailable, DatabaseUnavailable):
            await users.update_hash(self.database, user, await self.services.passwords.hash(password))
