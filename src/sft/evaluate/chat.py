"""Talk to a model: one prompt and its answer, or a conversation in the terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import torch

from sft.config import ModelConfig
from sft.data.template.chat_template import ChatTemplate
from sft.errors import SFTError
from sft.evaluate.finished_run import tuned_model
from sft.model.load import load_tokenizer, model_folder, stop_ids
from sft.probes.generate import CompletionStream, load_for_generation, stream
from sft.runs.run_dir import RunDir
from sft.texts.safe import printable

HELP = "/reset forgets the conversation, /system TEXT sets the system message, /exit or Ctrl-D ends"

Complete = Callable[[Sequence[int]], CompletionStream]


def chat(
    run: str | Path,
    prompt: str | None = None,
    *,
    system: str | None = None,
    max_new_tokens: int = 512,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    out: TextIO | None = None,
    err: TextIO | None = None,
) -> None:
    """Answer `prompt` and return; without one, converse with whoever types on stdin.

    `run` is a run folder, a model folder, a hub id, or `starter`. Answers go to `out` (stdout),
    all else to `err` (stderr). With `temperature` 0 answers are greedy, and `seed` is not used.

    Raises:
        ConfigError: there is no such model, or the run has none yet.
        DataError: the prompt cannot be sent to the model.
    """
    out, err = out or sys.stdout, err or sys.stderr
    config = _model_config(str(run))
    say = partial(print, file=err, flush=True)
    folder = model_folder(config, say)
    # As for LoRA: without a template of its own the model gets one that needs no new tokens.
    tokenizer = load_tokenizer(config, folder, "lora")
    template = ChatTemplate(tokenizer.tokenizer)
    model = load_for_generation(config, folder, tokenizer)
    stops = stop_ids(model, tokenizer.tokenizer, *template.facts.stop_ids)
    torch.manual_seed(seed)
    complete = partial(
        stream,
        model,
        tokenizer.tokenizer,
        max_new_tokens=max_new_tokens,
        stop_ids=stops,
        temperature=temperature,
        top_p=top_p,
    )
    talk = _Talk(template, complete, out, err, system)
    if prompt is not None:
        talk.answer(prompt)
        return
    say(f"{printable(str(run))} (template: {printable(tokenizer.template_source)})\n{HELP}")
    talk.converse()


def _model_config(name: str) -> ModelConfig:
    """The model of a run folder, or the model that `name` is itself."""
    run = RunDir(name)
    if run.config.is_file():
        return tuned_model(run)[1]
    return ModelConfig.model_validate({"name": name})


@dataclass(slots=True)
class _Talk:
    """A conversation with one model: its messages, and where they are printed."""

    template: ChatTemplate
    complete: Complete
    out: TextIO
    err: TextIO
    system: str | None
    messages: list[dict[str, Any]] = field(default_factory=list)

    def answer(self, text: str) -> None:
        """Send `text`, show the answer as it comes, and remember both.

        What was written before Ctrl-C is remembered too, as it is what the user saw.
        """
        asked = {"role": "user", "content": text}
        system = [] if self.system is None else [{"role": "system", "content": self.system}]
        reply = self.complete(self.template.prompt_ids([*system, *self.messages, asked]))
        pieces: list[str] = []
        try:
            with closing(iter(reply)) as iterator:  # type: ignore[type-var]
                for piece in iterator:
                    pieces.append(piece)
                    self.out.write(printable(piece))
                    self.out.flush()
        finally:
            self.out.write("\n")
            self.out.flush()
            if pieces:
                message = {"role": "assistant", "content": "".join(pieces)}
                self.messages += [asked, message]
        if reply.completion and reply.completion.stop_reason == "length":
            num_tokens = len(reply.completion.ids)
            self._say(f"(cut after {num_tokens} tokens; --max-new-tokens allows longer answers)")

    def converse(self) -> None:
        """Answer line after line until the end."""
        with suppress(ImportError):
            import readline  # noqa: F401  # arrow keys and history, where Python has it
        while (line := self._ask()) is not None:
            if line.startswith("/"):
                if not self._command(line):
                    return
            elif line:
                self._try(line)

    def _ask(self) -> str | None:
        """The next line without white space around it; None at the end of the input."""
        try:
            return input("> " if sys.stdin.isatty() else "").strip()
        except EOFError:
            return None
        except KeyboardInterrupt:
            self._say(f"\n{HELP}")
            return ""

    def _try(self, line: str) -> None:
        try:
            self.answer(line)
        except KeyboardInterrupt:
            self._say("(stopped)")
        except SFTError as error:
            self._say(f"{printable(str(error))} (/reset starts anew)")

    def _command(self, line: str) -> bool:
        """Do what `/...` says; False ends the conversation."""
        name, _, text = line.partition(" ")
        if name == "/exit":
            return False
        if name == "/reset":
            self.messages.clear()
            self._say("(forgotten)")
        elif name == "/system":
            self.system = text.strip() or None
            self._say("(system message set)" if self.system else "(no system message)")
        else:
            self._say(f"{printable(name)}: no such command. {HELP}")
        return True

    def _say(self, text: str) -> None:
        print(text, file=self.err, flush=True)
