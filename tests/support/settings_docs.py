"""The tables of settings in jobs/README.md, made from the models and their docstrings.

python -m tests.support.settings_docs    # rewrites them
"""

import re
from pathlib import Path

from ids_spark.config.described import Setting, settings_of

README = Path(__file__).parents[2] / "jobs" / "README.md"
_BLOCK = re.compile(r"(<!-- settings: (?P<key>[\w.<>]*) -->\n).*?(<!-- end -->)", re.DOTALL)


def with_settings(text: str) -> str:
    """Return the text with every table between `<!-- settings: KEY -->` and `<!-- end -->` generated again."""
    return _BLOCK.sub(lambda block: f"{block[1]}\n{table(block['key'])}\n{block[3]}", text)


def documented(text: str) -> set[str]:
    """Return the keys whose tables a text holds."""
    return {block["key"] for block in _BLOCK.finditer(text)}


def table(key: str) -> str:
    """Return the settings of one section as a Markdown table: name, default, meaning."""
    lines = ["| setting | default | meaning |", "|---|---|---|"]
    for setting in settings_of(key):
        text, choices = setting.meaning.replace("|", r"\|"), [f"`{choice}`" for choice in setting.choices]
        if not all(choice in text for choice in choices):
            text += f" One of {', '.join(choices)}."
        lines.append(f"| `{setting.key}` | {_default(setting)} | {text} |")
    return "\n".join(lines) + "\n"


def _default(setting: Setting) -> str:
    shown = setting.shown_default()
    plain = shown in ("required", "not set", "empty") or shown.endswith(" entries")
    return shown if plain else f"`{shown}`"


if __name__ == "__main__":
    README.write_text(with_settings(README.read_text()))
