"""A model on this machine as the writer: greedy, so that the same request has the same answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sft.augment.ask import Reply, Request
from sft.augment.cache import Cache, request_key
from sft.config import ModelConfig
from sft.data.template.chat_template import ChatTemplate
from sft.errors import DataError
from sft.evaluate.finished_run import tuned_model
from sft.model.load import fingerprint, load_tokenizer, model_folder, stop_ids
from sft.probes.generate import generate, load_for_generation
from sft.runs.run_dir import RunDir

CHUNK = 16  # requests that are written, and kept, together


class OwnModel:
    """A `Writer`. `name` is `starter`, a model folder, a hub id, or a run folder.

    Only answers that the model ended itself are replies.
    """

    def __init__(
        self,
        name: str,
        cache: Cache,
        on_progress: Callable[[str, int, int], None] = lambda _what, _done, _total: None,
    ) -> None:
        """Load the model.

        Raises:
            ConfigError: there is no such model, or the run has none yet.
        """
        on_progress("loading the model", 0, 0)
        run = RunDir(name)
        named = ModelConfig.model_validate({"name": name})
        config = tuned_model(run)[1] if run.config.is_file() else named
        folder = model_folder(config)
        # As in a chat: without a template of its own the model gets one without new tokens.
        tokenizer = load_tokenizer(config, folder, "lora")
        self._tokenizer = tokenizer.tokenizer
        self._template = ChatTemplate(self._tokenizer)
        self._model = load_for_generation(config, folder, tokenizer)
        self._stops = stop_ids(self._model, self._tokenizer, *self._template.facts.stop_ids)
        self._identity = [fingerprint(self._model), self._template.facts.sha256]
        self._cache = cache
        self._on_progress = on_progress

    def write(self, requests: Sequence[Request]) -> list[Reply]:
        """A reply to each, in their order; chunk by chunk, so that a stop loses one at most."""
        keys = [
            request_key({"own": self._identity, "messages": r.as_dicts(), "max": r.max_tokens})
            for r in requests
        ]
        new = {
            key: request
            for key, request in zip(keys, requests, strict=True)
            if not self._cache.get(key)
        }
        # Alike in length, so that little is padded.
        order = sorted(new, key=lambda key: new[key].num_chars)
        for start in range(0, len(order), CHUNK):
            self._on_progress("writing", start, len(order))
            self._write_chunk({key: new[key] for key in order[start : start + CHUNK]})
        self._on_progress("writing", len(order), len(order))
        answers = [self._cache.get(key) or {} for key in keys]
        return [Reply(str(a.get("text", "")), str(a.get("problem", ""))) for a in answers]

    def _write_chunk(self, requests: dict[str, Request]) -> None:
        prompts: dict[str, list[int]] = {}
        for key, request in requests.items():
            try:
                prompts[key] = self._template.prompt_ids(request.as_dicts())
            except DataError as error:
                self._cache.put(key, {"problem": f"cannot be asked ({error})"})
        if not prompts:
            return
        answers = generate(
            self._model,
            list(prompts.values()),
            max_new_tokens=max(requests[key].max_tokens for key in prompts),
            stop_ids=self._stops,
        )
        for key, answer in zip(prompts, answers, strict=True):
            cut = answer.stop_reason != "stop" or len(answer.ids) > requests[key].max_tokens
            text = self._tokenizer.decode(list(answer.ids), skip_special_tokens=True)
            problem = {"problem": "the model did not end its answer"} if cut else {}
            self._cache.put(key, {"text": text, **problem})
