"""stub"""
from typing import Any
Overview = Any
def overview_for(user: Any) -> Any: ...
