"""A model that follows a script, so that an agent does real work in a sandbox without a network or a bill.

It reads what the tools answer, as a model does, and goes by it; a failed tool call ends the eval.
"""

from __future__ import annotations

import re
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

from bugfix import Bug, Edit, load_bugs


@modelapi(name="scripted")
class ScriptedModel(ModelAPI):
    """Repairs the bugs of `bugs/*.toml` the way the files say."""

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig | None = None,
    ) -> None:
        super().__init__(model_name, base_url, api_key, [], config or GenerateConfig())
        self._bugs = load_bugs()

    async def generate(
        self,
        input: list[ChatMessage],
        tools: list[ToolInfo],
        tool_choice: ToolChoice,
        config: GenerateConfig,
    ) -> ModelOutput:
        """The next tool call."""
        tool, arguments = next_call(self._bug(input), input)
        output = ModelOutput.for_tool_call(self.model_name, tool, arguments)
        # without figures Inspect would count tokens, for which it downloads a vocabulary
        words = sum(len(message.text.split()) for message in input)
        output.usage = ModelUsage(input_tokens=words, output_tokens=1, total_tokens=words + 1)
        return output

    def _bug(self, messages: list[ChatMessage]) -> Bug:
        prompt = next(message.text for message in messages if message.role == "user")
        name = re.search(r"holds the module `(\w+)`", prompt)
        if name is None:
            raise RuntimeError(f"not a prompt of this eval: {prompt!r}")
        return self._bugs[name[1]]


def next_call(bug: Bug, messages: list[ChatMessage]) -> tuple[str, dict[str, Any]]:
    """What the agent does after `messages`: look around, read, edit, try it out, run the tests, submit."""
    results = [message for message in messages if isinstance(message, ChatMessageTool)]
    for result in results:
        if result.error is not None:
            raise RuntimeError(f"{result.function} failed for {bug.name}: {result.error.message}")
    done = sum(isinstance(message, ChatMessageAssistant) for message in messages)
    if done == 0:
        return "bash", {"command": "pwd; id; ls -R repo; repo/run-tests 2>&1"}
    repo = f"{results[0].text.splitlines()[0]}/repo"
    calls: list[tuple[str, dict[str, Any]]] = [
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
    passed = results[-1].text.rstrip().endswith("exit status 0")
    return "submit", {"answer": "Repaired: " + bug.report if passed else "The tests still fail."}


def replacement(repo: str, edit: Edit) -> dict[str, Any]:
    """The text editor's arguments for an edit."""
    return {
        "command": "str_replace",
        "path": f"{repo}/{edit.file}",
        "old_str": edit.old,
        "new_str": edit.new,
    }
