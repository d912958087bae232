"""Emails, passwords and UUIDs: their normal forms and limits."""

import re
import unicodedata

import email_validator

EMAIL_LENGTH = 254  # RFC 5321 section 4.5.3.1.3, without the angle brackets
PASSWORD_BYTES = 72  # the maximum for bcrypt
# A longer password exceeds 72 bytes in NFC: at worst, NFC turns three characters into one, which has two bytes.
_PASSWORD_CHARACTERS = PASSWORD_BYTES // 2 * 3
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")

# Only the syntax is checked: a company's name.local is a valid domain.
email_validator.SPECIAL_USE_DOMAIN_NAMES.clear()


def trim_email(email: str) -> str:
    """Return the email without the ASCII white space around it, which keyboards and forms add."""
    return email.strip(" \t\n\v\f\r")


def normalise_email(email: str) -> str | None:
    """Return the email as it is stored: trimmed, local part as typed, domain in lower case (RFC 5321 section 2.4).

    Return None if it is not an address in RFC 5322's syntax with an ASCII local part.
    """
    email = trim_email(email)
    if len(email) > EMAIL_LENGTH:  # the library should not parse a megabyte
        return None
    try:
        return email_validator.validate_email(email, check_deliverability=False, allow_smtputf8=False).normalized
    except email_validator.EmailNotValidError:
        return None


def fold_email(email: str) -> str:
    """Return the email with ASCII letters in lower case, like ``lower()`` in the index that accounts are found by."""
    return email.encode().lower().decode()  # bytes.lower() changes only ASCII


def compose_password(password: str) -> str:
    """Return the password in NFC (RFC 8265 section 4.2.2), so that it is the same from every keyboard.

    A password that is too long in any form is returned unchanged, because composing it can take quadratic time.
    """
    return password if len(password) > _PASSWORD_CHARACTERS else unicodedata.normalize("NFC", password)


def hashable(password: str) -> bytes | None:
    """Return the bytes for bcrypt to hash, the password's NFC in UTF-8, or None if they are too many."""
    encoded = compose_password(password).encode()
    return encoded if len(encoded) <= PASSWORD_BYTES else None


def parse_uuid(text: object) -> str | None:
    """Return a UUID in canonical form (RFC 9562 section 4: hyphens, lower case), or None if the text is not a UUID."""
    return text.lower() if isinstance(text, str) and _UUID.fullmatch(text) else None
