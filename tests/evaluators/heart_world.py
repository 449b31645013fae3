import numpy as np

from ecgjax.core.spec import ImageSpec
from ecgjax.data.cohorts.base import Target
from ecgjax.evaluators.base import Examples, Splits

TARGETS = (
    Target("LVEF", "regression", "%"),
    Target("LVM", "regression", "g"),
    Target("DCM", "binary"),
    Target("AF", "binary", control=True),
)
SIZES = {"train": 240, "val": 60, "test": 130}
LEADS, TIME, PIXELS = 2, 20, 8
IMAGE = ImageSpec(span=TIME, win=8, hop=4, n_fft=8, bins=4, frames=4)


class World:
    """Splits over a latent heart a subject, with two records a subject, padding, and several crops an example."""

    def __init__(self, *, crops=1, batch_size=32, padding="garbage"):
        self.crops, self.batch_size, self.padding = crops, batch_size, padding
        self.latent, self.ecg, self.cmr, self.table = {}, {}, {}, {}
        for number, (name, n) in enumerate(SIZES.items()):
            generator = np.random.default_rng([7, number])
            subjects = np.repeat(np.arange((n + 1) // 2), 2)[:n]
            latent = generator.normal(size=(n, 4)).astype(np.float32)
            label = phenotypes(latent)
            label[:, 2:] = label[:, 2:] > 0.5
            label[generator.random(label.shape) < 0.05] = np.nan
            self.latent[name] = latent
            self.ecg[name] = generator.normal(size=(n, LEADS, TIME)).astype(np.float32)
            self.cmr[name] = generator.random((n, PIXELS, PIXELS, 3)).astype(np.float32)
            self.table[name] = Examples(
                np.array([f"{number:08x}{s:08x}" for s in subjects], "U16"),
                np.array([f"{number:08x}{r:08x}" for r in range(n)], "U16"),
                label.astype(np.float32),
            )

    def batches(self, split):
        n = SIZES[split]
        rows = np.repeat(np.arange(n), self.crops)
        padded = -len(rows) % self.batch_size
        index = np.append(rows, np.full(padded, n - 1))
        mask = np.append(np.ones(len(rows), bool), np.zeros(padded, bool))
        crop = np.append(np.arange(len(rows)) % self.crops, np.zeros(padded, int))
        for start in range(0, len(index), self.batch_size):
            part = slice(start, start + self.batch_size)
            real = mask[part]
            latent = self.latent[split][index[part]].copy()
            ecg, cmr = (x[split][index[part]].copy() for x in (self.ecg, self.cmr))
            for array in (latent, ecg, cmr):
                array[~real] = {"garbage": 1e6, "nan": np.nan}[self.padding]
            yield {
                "latent": latent,
                "crop": crop[part],
                "ecg": ecg,
                "cmr": cmr,
                "mask": real,
                "index": np.where(real, index[part], -1).astype(np.int32),
            }

    def splits(self):
        def to_mv(split):
            shape = (SIZES[split], LEADS)
            return np.full(shape, 0.1, np.float32), np.full(shape, 2.0, np.float32)

        return Splits(
            targets=TARGETS,
            rate_hz=100.0,
            batches=self.batches,
            examples=self.table.__getitem__,
            signals_mv=lambda split: 2 * self.ecg[split] + np.float32(0.1),
            to_mv=to_mv,
            image=IMAGE,
        )


def phenotypes(latent):
    """LVEF, LVM, and what DCM and AF are cut from at 0.5."""
    mixed = latent @ np.array([[10, 5, 0, 0], [0, 30, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], np.float32)
    return mixed + np.array([55, 120, 0, 0], np.float32)


def noise(batch):
    """Deterministic in the example, unrelated to its heart."""
    rows = [np.random.default_rng(abs(int(i)) + 1000).normal(size=8) for i in batch["index"]]
    return np.stack(rows).astype(np.float32)


def separable(batch):
    """Predictions that hold everything: the heart itself, both projections equal, the ECG itself."""
    hidden = np.zeros_like(batch["ecg"])
    hidden[:, :, ::2] = 1
    attention = np.arange(1.0, 11)
    return {
        "ecg/embedding": batch["latent"],
        "ecg/projection": batch["latent"],
        "cmr/projection": 2 * batch["latent"],
        "ecg/local_projection_x2": everywhere(batch["latent"], LEADS, 10),
        "cmr/local_projection_x2": everywhere(batch["latent"], 4, 4),
        "ecg/attention": np.tile(attention / attention.sum(), (len(hidden), 3, 1)).reshape(-1, 3, LEADS, 5),
        "ecg/input": batch["ecg"],
        "cmr/input": batch["cmr"],
        "logits": phenotypes(batch["latent"]),
        "prediction": phenotypes(batch["latent"]),
        "reconstruction": batch["ecg"],
        "reconstruction_mask": hidden,
        "ecg/grad_cam": seen(phenotypes(batch["latent"]) > 0.5),
        "ecg/image": np.tile(batch["latent"][:, :, None], (1, 1, 4)),
    }


def seen(condition):
    """Maps of every output over each lead: the lower left corner with the condition, the upper right one without."""
    maps = np.zeros((*condition.shape, LEADS, 2, 2), np.float32)
    maps[..., 0, 0], maps[..., 1, 1] = condition[..., None], 1 - condition[..., None]
    return maps


def everywhere(z, rows, columns):
    """The vectors at the first place; elsewhere more and more of what everyone has."""
    own = np.linspace(1, 0, rows * columns).reshape(rows, columns, 1)
    return (own * z[:, None, None] + (1 - own) * np.ones(z.shape[1])).astype(np.float32)


def unrelated(batch):
    """Predictions that hold nothing."""
    out = separable(batch)
    z = noise(batch)
    out["ecg/embedding"] = out["ecg/projection"] = z
    out["cmr/projection"] = np.roll(z[:, ::-1], 3, axis=1) ** 2 - 1
    out["ecg/local_projection_x2"] = everywhere(z, LEADS, 10)
    out["cmr/local_projection_x2"] = everywhere(out["cmr/projection"], 4, 4)
    out["prediction"] = np.array([55, 120, 0, 0], np.float32) + 0.01 * z[:, :4]
    out["ecg/grad_cam"] = seen(z[:, 4:] > 0)
    out["reconstruction"] = np.zeros_like(batch["ecg"])
    return out
