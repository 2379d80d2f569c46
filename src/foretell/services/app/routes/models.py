"""The models with their schemas and prices. Public."""

from typing import Annotated

from fastapi import APIRouter, Query

from foretell.contracts import http
from foretell.services.app.dependencies import ModelName, State
from foretell.services.app.openapi import problem_answers
from foretell.services.app.presentation import model_of

router = APIRouter(tags=["models"])


@router.get("/models", summary="All models")
async def list_models(state: State) -> http.Models:
    """The default version of each model, with the JSON Schemas of input and output."""
    return http.Models(
        items=[model_of(state.registry.get(name), state.registry, state.settings) for name in state.registry.names]
    )


@router.get("/models/{name}", summary="One model", responses=problem_answers(404, 422))
async def show_model(
    name: ModelName,
    state: State,
    version: Annotated[str | None, Query(max_length=64, description="Without one, the default version")] = None,
) -> http.Model:
    """A version of a model, with the JSON Schemas of input and output, and examples."""
    return model_of(state.registry.get(name, version), state.registry, state.settings)
