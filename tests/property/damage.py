"""Files as faults and attackers make them: a few small changes to good ones."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st


@st.composite
def damaged(draw: st.DrawFn, seeds: Sequence[bytes], pieces: Sequence[bytes] = (), intact: int = 0) -> bytes:
    """One of `seeds`, changed in up to six places; `pieces` are likely insertions, the first bytes stay `intact`."""
    content = bytearray(draw(st.sampled_from(seeds)))
    inserted = st.binary(max_size=8) if not pieces else st.one_of(st.binary(max_size=8), st.sampled_from(pieces))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(min(intact, len(content)), len(content)))
        match draw(st.sampled_from(["flip", "insert", "replace", "delete", "truncate", "copy"])):
            case "flip" if at < len(content):
                content[at] ^= draw(st.integers(1, 255))
            case "insert":
                content[at:at] = draw(inserted)
            case "replace":
                piece = draw(inserted)
                content[at : at + len(piece)] = piece
            case "delete":
                del content[at : at + draw(st.integers(1, 16))]
            case "truncate":
                del content[max(at, 2) :]
            case _:
                end = draw(st.integers(at, min(at + 64, len(content))))
                content[at:at] = content[at:end]
    return bytes(content)
