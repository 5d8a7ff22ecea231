"""A model that follows a script, so that an agent does real work in a sandbox without a network or a bill.

It reads what the tools answer, as a model does, and goes by it; a failed tool call ends the eval.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from inspect_ai.model import (
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageTool,
    GenerateConfig,
    ModelAPI,
    ModelOutput,
    ModelUsage,
    modelapi,
)
from inspect_ai.tool import ToolChoice, ToolInfo

from bugfix import Edit, load_bugs
from exchange import FAULTS, PROGRAM, Fault

Call = tuple[str, dict[str, Any]]
BUGS = load_bugs()


@modelapi(name="scripted")
class ScriptedModel(ModelAPI):
    """Solves one eval the way its files say; the model's name is the eval's: `scripted/bugfix`."""

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig | None = None,
    ) -> None:
        super().__init__(model_name, base_url, api_key, [], config or GenerateConfig())
        self._next = SCRIPTS[model_name]

    async def generate(
        self,
        input: list[ChatMessage],
        tools: list[ToolInfo],
        tool_choice: ToolChoice,
        config: GenerateConfig,
    ) -> ModelOutput:
        """The next tool call."""
        prompt = next(message.text for message in input if message.role == "user")
        results = [message for message in input if isinstance(message, ChatMessageTool)]
        for result in results:
            if result.error is not None:
                raise RuntimeError(f"{result.function} failed: {result.error.message}")
        done = sum(isinstance(message, ChatMessageAssistant) for message in input)
        tool, arguments = self._next(prompt, done, [result.text for result in results])
        output = ModelOutput.for_tool_call(self.model_name, tool, arguments)
        # without figures Inspect would count tokens, for which it downloads a vocabulary
        words = sum(len(message.text.split()) for message in input)
        output.usage = ModelUsage(input_tokens=words, output_tokens=1, total_tokens=words + 1)
        return output


def repair_module(prompt: str, done: int, answers: list[str]) -> Call:
    """What the agent of `bugfix` does: look around, read, edit, try it out, run the tests, submit."""
    bug = BUGS[found(r"holds the module `(\w+)`", prompt)]
    if done == 0:
        return "bash", {"command": "pwd; id; ls -R repo; repo/run-tests 2>&1"}
    repo = f"{answers[0].splitlines()[0]}/repo"
    calls: list[Call] = [
        ("text_editor", {"command": "view", "path": f"{repo}/{bug.name}.py"}),
        *(("text_editor", replacement(repo, edit)) for edit in bug.edits),
        (
            "python",
            {"code": f"import sys\nsys.path.insert(0, {repo!r})\nimport {bug.name}\nprint('imported')"},
        ),
        ("bash", {"command": "repo/run-tests 2>&1; echo exit status $?"}),
    ]
    if done <= len(calls):
        return calls[done - 1]
    passed = answers[-1].rstrip().endswith("exit status 0")
    return "submit", {"answer": "Repaired: " + bug.report if passed else "The tests still fail."}


def replacement(repo: str, edit: Edit) -> dict[str, Any]:
    """The text editor's arguments for an edit."""
    return {
        "command": "str_replace",
        "path": f"{repo}/{edit.file}",
        "old_str": edit.old,
        "new_str": edit.new,
    }


def repair_service(prompt: str, done: int, answers: list[str]) -> Call:
    """What the agent of `exchange` does: ask the service, read its program, change that, ask again, submit."""
    fault = FAULTS[found(r"a fault with (.+)\. A user", prompt)]
    ask = {"command": f"wget -q -O - 'http://web/cgi-bin/convert?{fault.query}' 2>&1; echo exit status $?"}
    if done < 2:
        return "shell", (ask, {"command": f"cat {PROGRAM}"})[done]
    calls: list[Call] = [
        # `tee` keeps the mode, without which the service would not run it
        ("shell", {"command": f"tee {PROGRAM} <<'END'\n{repaired(fault, answers[1])}END"}),
        ("shell", ask),
    ]
    if done < 2 + len(calls):
        return calls[done - 2]
    return "submit", {
        "answer": f"It answers {answers[-1].strip()!r} now, and answered {answers[0].strip()!r}."
    }


def repaired(fault: Fault, program: str) -> str:
    """The program as the agent leaves it, from what it read."""
    if fault.wrong not in program:
        raise RuntimeError(f"the program of {fault.name} has no fault: {program!r}")
    return program.rstrip().replace(fault.wrong.rstrip(), fault.repair.rstrip()) + "\n"


def found(pattern: str, prompt: str) -> str:
    """The name that a prompt holds."""
    match = re.search(pattern, prompt)
    if match is None:
        raise RuntimeError(f"not a prompt of this eval: {prompt!r}")
    return match[1]


SCRIPTS: dict[str, Callable[[str, int, list[str]], Call]] = {
    "bugfix": repair_module,
    "exchange": repair_service,
}
