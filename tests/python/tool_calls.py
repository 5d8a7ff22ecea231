"""Evals whose model makes the tool calls that a test names, without a network."""

from __future__ import annotations

import os
from typing import Any

from inspect_ai import Task
from inspect_ai import eval as inspect_eval
from inspect_ai.dataset import Sample
from inspect_ai.log import EvalLog
from inspect_ai.model import ChatMessageTool, Model, ModelOutput, ModelUsage, get_model
from inspect_ai.solver import Generate, Solver, TaskState, generate, solver, use_tools
from inspect_ai.tool import Tool

Call = tuple[str, dict[str, Any]]


def scripted(*calls: Call, last: str = "done") -> Model:
    """A model that makes these calls, one at a time and the same in every sample, and ends with `last`."""

    def answer(messages: list[Any], *_: object) -> ModelOutput:
        step = sum(message.role == "assistant" for message in messages)
        if step < len(calls):
            output = ModelOutput.for_tool_call("mockllm/model", *calls[step])
        else:
            output = ModelOutput.from_content("mockllm/model", last)
        # without figures Inspect would count tokens, for which it downloads a vocabulary
        output.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)
        return output

    return get_model("mockllm/model", custom_outputs=answer, memoize=False)


def evaluate(
    task: Task | list[Task], model: Model | None = None, *, sandbox_cleanup: bool = True, **options: Any
) -> EvalLog:
    """Runs one task in Daytona sandboxes; its log."""
    [log] = inspect_eval(
        task,
        model=model or scripted(),
        sandbox_cleanup=sandbox_cleanup,
        log_dir=os.environ["INSPECT_LOG_DIR"],
        **options,
    )
    return log


def with_tools(*tools: Tool, sample: Sample | None = None) -> Task:
    """A task with one sample whose model uses `tools`."""
    return Task(
        dataset=[sample or Sample(id="one", input="go")],
        solver=[use_tools(*tools), generate()],
        sandbox="daytona",
    )


def results(log: EvalLog) -> list[str]:
    """What the tools of the first sample answered, in order; fails if one of them failed."""
    assert log.status == "success", log.error and log.error.message
    assert log.samples
    messages = [message for message in log.samples[0].messages if isinstance(message, ChatMessageTool)]
    assert [message.error for message in messages if message.error] == []
    return [message.text for message in messages]


@solver
def python_solver(action: Any) -> Solver:
    """A solver that awaits `action(state)`."""

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        await action(state)
        return state

    return solve
