"""Case-insensitive search conditions for every script, independent of the database's locale.

SQLite's LIKE, and PostgreSQL's without a locale, ignore case only for ASCII. So other letters are matched in both of
their forms.
"""


def case_blind(column: str, parameter: str, text: str, *, sqlite: bool) -> tuple[str, str]:
    """A condition that `column` contains `text`, and the value of its `parameter`."""
    if text.isascii():
        pattern = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        condition = f"{column} LIKE {parameter} ESCAPE '\\'" if sqlite else f'{column} COLLATE "C" ILIKE {parameter}'
        return condition, f"%{pattern}%"
    if sqlite:
        return f"{column} GLOB {parameter}", "*" + "".join(map(_glob, text)) + "*"
    return f'{column} COLLATE "C" ~ {parameter}', "".join(map(_regular, text))


def _forms(character: str) -> str:
    forms = {character, character.lower(), character.upper()}
    return "".join(sorted(form for form in forms if len(form) == 1))


def _glob(character: str) -> str:
    forms = _forms(character)
    return f"[{forms}]" if len(forms) > 1 or forms in "*?[" else forms


def _regular(character: str) -> str:
    forms = _forms(character)
    if len(forms) > 1:
        return f"[{forms}]"
    return forms if forms.isalnum() or not forms.isascii() else f"\\{forms}"
