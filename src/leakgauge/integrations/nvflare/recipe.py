"""`record`: both filters into a recipe in one line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from leakgauge.errors import IntegrationError, OptionError
from leakgauge.integrations.nvflare.filters import ReceivedModel, RecordUpdate


def record(
    recipe: Any, folder: str, model: str, *, tasks: Sequence[str] = ("train",), clients: list[str] | None = None, **options: Any
) -> RecordUpdate:
    """Adds `ReceivedModel` and `RecordUpdate` to a recipe's clients; call it after every other filter was added.

    The tasks have to be named: in NVFlare 2.9 a filter that is added without tasks raises a TypeError, and one for the task
    '*' is accepted and never runs. leakgauge itself is not copied into the job, so it has to be installed at each site.

    Args:
        recipe: a FedAvgRecipe, or any other recipe with client filters.
        folder, model, options: as `RecordUpdate` takes them.
        tasks: names of the tasks whose results are recorded.
        clients: names of clients, for a recipe with per-site configuration; None for all of them.

    Returns:
        The output filter that was added.

    Raises:
        OptionError: for a task '*', no task, or an option that `RecordUpdate` refuses.
        IntegrationError: if the recipe takes no client filters.
    """
    if isinstance(tasks, str) or not tasks or "*" in tasks:
        raise OptionError(f"record's tasks are {tasks!r}; expected names such as ['train']: NVFlare runs no filter for '*'.")
    if not hasattr(recipe, "add_client_input_filter") or not hasattr(recipe, "add_client_output_filter"):
        raise IntegrationError(f"record got a {type(recipe).__name__}; expected an NVFlare recipe, which takes client filters.")
    outgoing = RecordUpdate(folder, model, **options)
    recipe.add_client_input_filter(ReceivedModel(), tasks=list(tasks), clients=clients)
    recipe.add_client_output_filter(outgoing, tasks=list(tasks), clients=clients)
    job = getattr(recipe, "_job", None)
    if job is not None and hasattr(job, "set_app_packages"):
        job.set_app_packages([*getattr(job.job, "app_packages", ()), "leakgauge"])
    return outgoing
