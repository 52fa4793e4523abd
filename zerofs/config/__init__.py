"""Configuration: a TOML file and the environment in, frozen settings out.

`load` is the door; `settings` says what comes out, `schema` lists every key, `password` reads the secret, `paths` knows
where files lie. The room gathers what the other rooms need and knows nothing of how they use it.
"""

from zerofs.config.loading import load as load
from zerofs.config.settings import Settings as Settings
