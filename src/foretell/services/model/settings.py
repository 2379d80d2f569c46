"""Settings of the model service."""

from pydantic import Field, SecretStr, model_validator

from foretell.inference.arriving import UploadSettings
from foretell.inference.settings import InferenceSettings

_SHORTEST_TOKEN = 16


class ModelSettings(InferenceSettings, UploadSettings):
    """Settings of the model service."""

    port: int = Field(default=8001, ge=0, le=65535)
    #: The token for loading, unloading and uploading models. Without one, these are disabled.
    admin_token: SecretStr = SecretStr("")
    #: Limits of one request, large enough for batches of tensors.
    max_body_bytes: int = Field(default=16 * 1024 * 1024, ge=1024)
    #: The memory of all requests together; most memory belongs to the models. A larger body needs a larger bound.
    max_bytes_under_way: int = Field(default=12 * 1024 * 1024, ge=1024 * 1024)
    max_rows: int = Field(default=10_000, ge=1)
    max_answer_bytes: int = Field(default=64 * 1024 * 1024, ge=1024)

    @model_validator(mode="after")
    def _token_is_no_guess(self) -> "ModelSettings":
        token = self.admin_token.get_secret_value()
        if token and self.production:
            self.check_secret("admin_token", token, _SHORTEST_TOKEN)
        return self
