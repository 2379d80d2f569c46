"""Settings of the preprocessing service."""

from pydantic import Field

from foretell.kit.settings import ServiceSettings


class PreprocessingSettings(ServiceSettings):
    """Settings of the preprocessing service."""

    port: int = Field(default=8002, ge=0, le=65535)
    #: Limits of one request.
    max_body_bytes: int = Field(default=16 * 1024 * 1024, ge=1024)
    max_bytes_under_way: int = Field(default=16 * 1024 * 1024, ge=1024 * 1024)
    max_rows: int = Field(default=10_000, ge=1)
