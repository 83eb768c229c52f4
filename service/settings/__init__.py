"""All settings of the service, read once: options, environment (prefix `SDPOSE_`), TOML file.

Only `service.runtime` and the rooms above it see them; the rooms below get values.
"""

from service.settings.fields import PREFIX, Settings
from service.settings.sources import CONFIG, SettingsError, ignored_settings, load_settings

__all__ = ["CONFIG", "PREFIX", "Settings", "SettingsError", "ignored_settings", "load_settings"]
