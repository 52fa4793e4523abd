"""Environment variables in configuration strings. Pure: the environment is an argument.

    $NAME   ${NAME}     the variable; an error when it is not set
    ${NAME:-default}    the variable, or the text up to the brace when it is not set or empty
    $$                  one dollar sign

Any other dollar sign is an error, so that a password with a `$` in it is never changed silently. What a variable
holds is not expanded again. Messages name variables, never what they or the string hold.
"""

import re
from collections.abc import Mapping

from zerofs.errors import ConfigError

_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_REFERENCE = re.compile(
    rf"\$(?:(?P<dollar>\$)|(?P<bare>{_NAME})|\{{(?P<braced>{_NAME})(?::-(?P<default>[^}}]*))?\}}|(?P<bad>))"
)


def expand(text: str, environ: Mapping[str, str]) -> str:
    """`text` with its references replaced.

    Raises:
        ConfigError: a variable is not set, or a dollar sign begins no reference.
    """

    def replace(match: re.Match[str]) -> str:
        if match["dollar"]:
            return "$"
        if match["bad"] is not None:
            raise ConfigError("a '$' that begins no $NAME, ${NAME} or ${NAME:-default}; write $$ for a dollar sign")
        name = match["bare"] or match["braced"]
        value = environ.get(name)
        if match["default"] is not None:
            return value or match["default"]
        if value is None:
            raise ConfigError(f"the environment variable {name} is not set; set it, or write ${{{name}:-default}}")
        return value

    return _REFERENCE.sub(replace, text)
