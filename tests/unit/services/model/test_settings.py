"""What the model service refuses to start with."""

import pytest

from foretell.kit.errors import Misconfigured
from foretell.services.model.settings import ModelSettings


@pytest.mark.parametrize("token", ["short", "a" * 16, "ü" * 20, "my-password-is-long"])
def test_production_needs_an_admin_token_that_is_no_guess(token: str) -> None:
    with pytest.raises(Misconfigured, match="FORETELL_ADMIN_TOKEN") as refusal:
        ModelSettings(environment="production", admin_token=token)
    assert token not in refusal.value.message
    ModelSettings(environment="production", admin_token="k3Jq8ZpW0xYvT5nB")
    ModelSettings(environment="production")
    ModelSettings(admin_token=token)
