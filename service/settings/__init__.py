"""All settings of the service, read once: options, environment (prefix `SDPOSE_`), TOML file.

Only `service.runtime` and the rooms above it see them; the rooms below get values.
"""

from service.settings.fields import PREFIX, Settings
from service.settings.sources import CONFIG, SettingsError, load_settings, unknown_settings

__all__ = ["CONFIG", "PREFIX", "Settings", "SettingsError", "load_settings", "unknown_settings"]
