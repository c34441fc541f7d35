"""The TOML files that sitkit comes with: presets and samplers, by name."""

from importlib.resources import files


def presets() -> dict[str, str]:
    """Return the text of every preset, by name."""
    return _texts("presets")


def samplers() -> dict[str, str]:
    """Return the text of every packaged sampler, by name."""
    return _texts("samplers")


def summary(text: str) -> str:
    """Return the first sentence of the comment with which a file starts."""
    comment = []
    for line in text.splitlines():
        if not line.strip("# ") or not line.startswith("#"):
            break
        comment.append(line.strip("# "))
    return " ".join(comment).partition(". ")[0].removesuffix(".")


def listing() -> str:
    """Return the names of all presets and samplers, one a line, each with what it is."""
    parts = [("Presets, for `sitkit train` and `sitkit show`", presets()), ("Samplers, for --sampler", samplers())]
    width = max(len(name) for _, texts in parts for name in texts)
    blocks = [
        "\n".join([f"{title}:", *(f"  {name:{width}}  {summary(text)}" for name, text in texts.items())])
        for title, texts in parts
    ]
    return "\n\n".join(blocks)


def _texts(folder: str) -> dict[str, str]:
    found = files("sitkit.recipes.experiment") / folder
    texts = {file.name.removesuffix(".toml"): file for file in found.iterdir() if file.name.endswith(".toml")}
    return {name: texts[name].read_text() for name in sorted(texts)}
