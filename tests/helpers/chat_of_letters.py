"""A tokenizer with a chat template that needs no files: one token a character."""

from collections.abc import Sequence


class ChatOfLetters:
    """Characters up to 255 are their code; 256 ends a response."""

    vocab_size = 257
    eos_ids = (256,)
    pad_id = 256
    start_ids = ()

    def encode(self, text: str) -> list[int]:
        return [ord(letter) for letter in text]

    @property
    def control_tokens(self) -> dict[int, str]:
        return {256: "<end>"}

    def encode_plain(self, text: str) -> list[int]:
        return self.encode(text)

    def token_bytes(self, token_id: int) -> bytes:
        return b"" if token_id == 256 else chr(token_id).encode("utf-8")

    def render_chat(self, messages: Sequence[dict[str, str]], tools: Sequence[object] = ()) -> str:
        del tools
        turns = "".join(f"[{m['role']}]{m['content']}" for m in messages)
        return turns + "[assistant]"
