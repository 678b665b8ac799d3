"""A rule that finds private data in a prompt by its form, without any model."""

import re
from collections.abc import Callable

_SEPARATORS = re.compile(r"[ .\-]")
_STREETS = (
    "street|st|avenue|ave|road|rd|lane|ln|drive|dr|boulevard|blvd|court|ct|way|place|pl|square|close|terrace|crescent|"
    "highway|hwy|parkway|pkwy|row|gate|hill"
)


_DATE = re.compile(r"\d{1,4}[-./ ]\d{1,2}[-./ ]\d{1,4}|[12]\d{3}-[12]\d{3}")


def luhn(number: str) -> bool:
    """Whether the digits carry a valid check digit (ISO/IEC 7812-1): every second from the right counts double."""
    digits = [int(digit) for digit in reversed(number)]
    doubled = sum(sum(divmod(2 * digit, 10)) for digit in digits[1::2])
    return (sum(digits[::2]) + doubled) % 10 == 0


def _card(found: str) -> bool:
    digits = _SEPARATORS.sub("", found)
    return 12 <= len(digits) <= 19 and len(set(digits)) > 1 and luhn(digits)


def _iban(found: str) -> bool:
    """ISO 13616: with the first four characters last and letters as 10 to 35, the remainder by 97 is 1."""
    compact = _SEPARATORS.sub("", found)
    moved = compact[4:] + compact[:4]
    return 15 <= len(compact) <= 34 and int("".join(str(int(sign, 36)) for sign in moved)) % 97 == 1


def _phone(found: str) -> bool:
    """Seven to fifteen digits (E.164), and not the form of a date or of two years."""
    digits = re.sub(r"\D", "", found)
    return 7 <= len(digits) <= 15 and not _DATE.fullmatch(found.strip())


def _always(_: str) -> bool:
    return True


_RULES: dict[str, tuple[re.Pattern[str], Callable[[str], bool]]] = {
    "email": (re.compile(r"(?<![\w.+-])[\w.+-]+@[\w-]+(?:\.[\w-]+)+"), _always),
    "IBAN": (re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b"), _iban),
    "card": (re.compile(r"(?<![\w.])\d(?:[ -]?\d){11,18}(?!\w|\.\d)"), _card),
    "social security number": (re.compile(r"(?<![\d-])\d{3}([- ])\d{2}\1\d{4}(?![\d-])"), _always),
    "phone": (
        re.compile(
            r"(?<![\w.$€£])(?:\+|00)\d{1,3}[ .()-]*\d(?:[ .()-]{0,2}\d){5,12}(?!\w)"  # international
            r"|(?<![\w.$€£])(?:\(\d{2,5}\)|0\d{1,4})[ .-]{0,2}\d{2,8}(?:[ .-]\d{2,4}){0,4}(?![\w-])"  # with a prefix
            r"|(?<![\w.$€£-])\d{2,4}(?:[.-]\d{2,4}){1,4}(?:x\d+)?(?![\w-]|\.\d)"  # grouped by dashes or dots
            r"|(?<![\w.$€£])\d{10}(?!\w)"
        ),
        _phone,
    ),
    "IP address": (
        re.compile(r"(?<![\d.])(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)(?![\d.])"),
        _always,
    ),
    "address": (
        re.compile(
            rf"\b\d{{1,5}}[A-Za-z]?,? (?:[A-ZÀ-Ý][\w'\u2019.-]*\s){{1,3}}(?i:{_STREETS})\b"
            r"|\b[A-ZÀ-Ý][\w'\u2019-]{0,60}(?:straße|strasse|gatan|gata|vej|gasse|weg|laan|straat) \d{1,4}\b"
            r"|\b(?:[Rr]ue|[Vv]ia|[Cc]alle|[Aa]venida|[Rr]ua) (?:[\w'\u2019-]+ ){1,4}\d{1,4}\b"
            r"|\b\d{1,4},? (?:rue|via|calle) (?:[\w'\u2019-]+ ?){1,4}"
        ),
        _always,
    ),
}
KINDS = tuple(_RULES)


def find_private(text: str) -> set[str]:
    """The kinds of private data in the text, of KINDS. Names alone are not found: the rule knows forms only."""
    return {
        kind
        for kind, (pattern, check) in _RULES.items()
        if any(check(match.group()) for match in pattern.finditer(text))
    }
