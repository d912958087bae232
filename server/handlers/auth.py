"""Registration and login."""

from contextlib import suppress
from typing import cast

import structlog

from server.api.operations import Operation
from server.database import DatabaseUnavailable, UniqueViolation
from server.errors import EmailTaken, InvalidCredentials, ServiceUnavailable, TooManyRequests
from server.handlers.base import BaseHandler
from server.queries import users
from server.queries.users import User
from server.values import EMAIL_LENGTH, fold_email, normalise_email

log = structlog.get_logger()


class AuthHandler(BaseHandler):
    """A public handler that limits the attempts at its ``action``; the paths of both contracts share the limit."""

    action: str

    async def check_caller(self) -> None:
        """Count the attempt; raise ``TooManyRequests`` if there were too many from the client's address."""
        await self.services.rate_limiter.count_attempt(self.action, self.client_address)

    def send_session(self, user: User) -> None:
        """Respond with the user and a new token."""
        token = self.services.tokens.issue(user.id, user.email)
        self.send_json({"token": token, "user": {"id": user.id, "email": user.email}})


class RegisterHandler(AuthHandler):
    """``/api/auth/signup``, ``/auth/register``."""

    action = "register"

    @Operation(
        name="signUp",
        body="{contract}/register.json",
        response="session.json",
        status=201,
        errors=(EmailTaken(), TooManyRequests(60)),
    )
    async def post(self) -> None:
        """Register an account (FR-007 to FR-012).

        The response contains a token, so a new user need not log in.
        """
        body = await self.json_body()
        email = cast("str", normalise_email(body["email"]))  # the schema has validated it
        password_hash = await self.services.passwords.hash(body["password"])
        try:
            user = await users.create(self.database, email, password_hash)
        except UniqueViolation:
            raise EmailTaken from None
        self.send_session(user)


class LoginHandler(AuthHandler):
    """``/api/auth/login``, ``/auth/login``."""

    action = "login"

    @Operation(
        name="logIn", body="login.json", response="session.json", errors=(InvalidCredentials(), TooManyRequests(60))
    )
    async def post(self) -> None:
        """Log in to an account (FR-013 to FR-017).

        After too many failed logins with an email, even the right password gets a 429.
        """
        body = await self.json_body()
        passwords, limiter = self.services.passwords, self.services.rate_limiter
        email = normalise_email(body["email"])
        account = fold_email(email or body["email"][:EMAIL_LENGTH])
        # Not inside login_turn(): logins to one account would have to wait for each other's queries.
        user = await users.get_by_email(self.database, email) if email else None
        async with limiter.login_turn(account, self.client_address):
            if not await passwords.verify(body["password"], user and user.password_hash):
                await limiter.count_failed_login(account)
                reason = "wrong_password" if user else "unknown_email"
                log.warning("login_failed", reason=reason, remote_ip=self.client_address)
                raise InvalidCredentials
        assert user is not None  # noqa: S101  # verify() returns False when user is None
        if passwords.is_outdated(user.password_hash):
            with suppress(ServiceUnavailable, DatabaseUnavailable):  # the next login tries to replace the hash again
                await users.update_hash(self.database, user, await passwords.hash(body["password"]))
        self.send_session(user)
