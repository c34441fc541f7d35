"""Print the lower bounds of pyproject.toml as constraints: what `make lowest` installs and tests."""

import re
import tomllib

with open("pyproject.toml", "rb") as file:
    project = tomllib.load(file)["project"]
bounds = project["dependencies"] + [line for extra in project["optional-dependencies"].values() for line in extra]
for line in bounds:
    if match := re.fullmatch(r"([\w.-]+)>=([\w.]+)", line):
        print(f"{match[1]}=={match[2]}")
