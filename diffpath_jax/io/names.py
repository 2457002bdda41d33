"""The rule for names from outside that become names of files and folders: of classes, data sets, splits."""

import re

# A file system's limit is 255 bytes, and names get endings.
MAX_BYTES = 128
# Separators of every system, what shells and Windows take for something else, and what no one can see.
_FORBIDDEN = re.compile(r'[/\\:*?"<>|\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]')
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


def why_not(name: str) -> str:
    """Returns why a text is no name; empty where it is one."""
    if not name or name != name.strip() or name.startswith(".") or name.endswith("."):
        return "it is empty, or begins or ends with a dot or a space"
    if len(name.encode(errors="surrogatepass")) > MAX_BYTES:
        return f"it is longer than {MAX_BYTES} bytes"
    if _FORBIDDEN.search(name) or not name.isprintable():
        return "it holds a character that no file name may hold everywhere"
    return "it is the name of a device on Windows" if _DEVICES.fullmatch(name) else ""


def check_names(*names: str) -> None:
    """Refuse what is no name.

    Raises:
        ValueError: naming the first.
    """
    for name in names:
        if why := why_not(name):
            raise ValueError(f"{name[:MAX_BYTES]!a} is no name: {why}")
