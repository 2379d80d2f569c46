"""What operators see and steer: `/admin/...`, behind `OperatorOnly`. Every act is a row of the journal."""

from fastapi import APIRouter

from foretell.services.app.routes.admin import journal, predictions, users

router = APIRouter(prefix="/admin", tags=["operators"])
for _module in (journal, predictions, users):
    router.include_router(_module.router)
