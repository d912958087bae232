"""Values that several rooms of the server read: emails, UUIDs and the limits of emails and passwords."""

import re

import email_validator

EMAIL_LENGTH = 254  # RFC 5321 section 4.5.3.1.3, less the angle brackets
PASSWORD_BYTES = 72  # bcrypt reads no further

_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")

# "Syntax only": a company's name.local is as good as any.
email_validator.SPECIAL_USE_DOMAIN_NAMES.clear()


def normalise_email(email: str) -> str | None:
    """Return the email as accounts keep it: local part as typed, domain in lower case (RFC 5321 section 2.4).

    None stands for what is not an address in RFC 5322's syntax with an ASCII local part.
    """
    if len(email) > EMAIL_LENGTH:  # before the library looks at a megabyte
        return None
    try:
        return email_validator.validate_email(email, check_deliverability=False, allow_smtputf8=False).normalized
    except email_validator.EmailNotValidError:
        return None


def fold_email(email: str) -> str:
    """Return the text that accounts are found by: ASCII letters in lower case, like ``lower()`` in their index."""
    return email.encode().lower().decode()  # bytes.lower() knows ASCII only


def parse_uuid(text: object) -> str | None:
    """Return a UUID in its usual form (RFC 9562 section 4, hyphens, lower case), or None if the text is not one."""
    return text.lower() if isinstance(text, str) and _UUID.fullmatch(text) else None
