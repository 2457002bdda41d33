"""The steps that rows of a study ask for: data sets, models, sets of images, evaluations, classifiers.

Every function returns one :class:`Step` that names what it needs; rows that ask for the same step share it.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from diffpath_jax.study.config import StudyConfig
from diffpath_jax.study.step import Step

# What stands for the study's own classifier where features are named.
OWN_CLASSIFIER = "classifier"


@dataclass(frozen=True)
class ArmSteps:
    """Classifiers that differ in nothing but their seeds.

    Attributes:
        name: name of the arm.
        runs: a training a seed.
    """

    name: str
    runs: tuple[Step, ...]

    @property
    def word(self) -> str:
        """Returns the word of ``diffpath compare --arm``."""
        return f"{self.name}={','.join(str(run.out) for run in self.runs)}"


@dataclass(frozen=True)
class StudySteps:
    """Makes the steps of a study.

    Attributes:
        config: the study.
        workdir: directory of all that it leaves.
        sources: options of ``diffpath prep`` that say where all its data sets come from.
    """

    config: StudyConfig
    workdir: Path
    sources: tuple[str, ...] = ()

    def dataset(self, name: str, patch_px: int = 0) -> Step:
        """Returns the preparation of a data set; ``patch_px`` asks for fields of another size at the same um/px."""
        images = self.config.datasets[name]
        if images.directory:
            return Step(f"{name}/dataset", (), Path(images.directory))
        scaled = bool(patch_px) and patch_px != images.patch_px
        step = f"{name}/dataset_{patch_px}px" if scaled else f"{name}/dataset"
        words = ["prep", *self.sources, *shlex.split(images.prep)]
        if images.fov_um:
            side = patch_px or images.patch_px
            words += ["--fov_um", f"{images.fov_um * side / images.patch_px:g}", "--patch_px", str(side)]
        return self._step(step, words, "--out")

    def transformed(self, name: str, data: Step, *options: str, needs: Sequence[Step] = ()) -> Step:
        """Returns a data set made of another by ``diffpath transform``."""
        return self._step(name, ["transform", "--data", str(data.out), *options], "--out", (data, *needs))

    def model(self, dataset: str, model: str, part: str = "", data: Step | None = None, options: str = "") -> Step:
        """Returns the training of a diffusion model.

        Args:
            dataset: name of the data set.
            model: name of the model.
            part: name of a part of the data set, as a directory; empty for all of it.
            data: the part; none for all of it.
            options: more words of ``diffpath train``.
        """
        config, place = self.config.models[model], f"{dataset}/{part}{model}"
        data = data or self.dataset(dataset)
        words = [*shlex.split(config.options), *shlex.split(options)]
        if config.first_stage:
            stage = self.autoencoder(dataset, model)
            encode = ["encode", "--data", str(data.out), "--first_stage", str(stage.out)]
            data = self._step(f"{place}/latents", [*encode, *shlex.split(config.encode)], "--out", (data, stage))
            words.append(f"--config.codec.first_stage={stage.out}")
        return self.training(f"{place}/model", config.config, [data], words)

    def autoencoder(self, dataset: str, model: str) -> Step:
        """Returns the training of the autoencoder of a latent model."""
        stage, data = self.config.models[model].first_stage, self.dataset(dataset)
        return self.training(f"{dataset}/{model}/autoencoder", stage, [data], [])

    def reconstructions(self, dataset: str, model: str) -> Step:
        """Returns what the autoencoder of a latent model makes of held-out images."""
        stage, data = self.autoencoder(dataset, model), self.dataset(dataset)
        words = ["reconstruct", "--data", str(data.out), "--first_stage", str(stage.out)]
        return self._step(f"{dataset}/{model}/reconstructions", words, "--out", (data, stage))

    def samples(
        self, model: Step, name: str, options: str, counts: Sequence[str] = (), needs: Sequence[Step] = ()
    ) -> Step:
        """Returns a set of images of a model.

        Args:
            model: its training.
            name: name of the set, as a directory beside the model.
            options: options of ``diffpath sample``.
            counts: which say how many images; none for those of every measured set.
            needs: steps that ``counts`` speak of.
        """
        place = model.name.rpartition("/")[0]
        counts = counts or ("--num_per_class", str(self.config.num_per_class))
        words = ["sample", "--workdir", str(model.out), *counts, *shlex.split(options)]
        return self._step(
            f"{place}/samples/{name}", [*words, "--seed", str(self.config.seed)], "--out", (model, *needs)
        )

    def evaluation(self, name: str, dataset: str, measured: Step, *options: str, patch_px: int = 0) -> Step:
        """Returns the measurement of a set against real images that no model was trained on.

        Args:
            name: name of the evaluation, as a directory beside the data set.
            dataset: name of the data set.
            measured: the set.
            options: more options of ``diffpath eval``.
            patch_px: side of its images, where it is not that of the data set.
        """
        real, classifier = self.dataset(dataset, patch_px), self.classifier_of_all(dataset, patch_px)
        words = ["eval", "--real", str(real.out), "--generated", str(measured.out)]
        words += ["--features", *self.features(dataset, patch_px)]
        settings = {"resamples": self.config.resamples, "held_out": self.config.held_out, "seed": self.config.seed}
        words += [*options, *(f"--{key}={value}" for key, value in settings.items()), *self.feature_cache]
        return self._step(f"{dataset}/evals/{name}", words, "--out", (real, measured, classifier))

    def features(self, dataset: str, patch_px: int = 0) -> list[str]:
        """Returns what ``--features`` is told, of a data set's own classifier where the config says so."""
        own = str(self.classifier_of_all(dataset, patch_px).out)
        return [own if name == OWN_CLASSIFIER else name for name in self.config.features]

    def label_check(self, dataset: str) -> tuple[str, ...]:
        """Returns the options by which an evaluation asks the classifier of real images which class it sees."""
        return "--classifier", str(self.classifier_of_all(dataset).out)

    def arm(
        self, dataset: str, name: str, data: Sequence[Step], amounts: Sequence[float] = (), options: str = ""
    ) -> ArmSteps:
        """Returns classifiers trained on the same images, one a seed.

        Args:
            dataset: name of the data set.
            name: name of the arm.
            data: data sets that are trained on.
            amounts: of each, in units of the first one's images; none takes each whole.
            options: more words of ``diffpath train``.
        """
        mixture = [f"--config.data.mixture=({', '.join(map(str, amounts))},)"] if amounts else []
        words = [*shlex.split(options), *mixture]
        seeds = range(self.config.classifier.seeds)
        runs = [self.classifier(f"{dataset}/arms/{name}/seed{seed}", data, words, seed) for seed in seeds]
        return ArmSteps(name, tuple(runs))

    def classifier(self, name: str, data: Sequence[Step], words: Sequence[str] = (), seed: int = 0) -> Step:
        """Returns the training of a classifier on data sets, with more words of ``diffpath train``."""
        config = self.config.classifier
        words = [*shlex.split(config.options), *words, f"--config.seed={seed}"]
        return self.training(name, config.config, data, words)

    def classifier_of_all(self, dataset: str, patch_px: int = 0) -> Step:
        """Returns the classifier of all real training images (of a size), by which sets are judged."""
        data = self.dataset(dataset, patch_px)
        return self.classifier(f"{dataset}/classifiers/{data.out.name.replace('dataset', 'real')}", [data])

    def comparison(self, name: str, dataset: str, arms: Sequence[ArmSteps], *options: str) -> Step:
        """Returns the comparison of arms on the same real images; the first arm is the baseline."""
        data = self.dataset(dataset)
        words = ["compare", "--test", str(data.out), *(word for arm in arms for word in ("--arm", arm.word))]
        needs = (data, *(run for arm in arms for run in arm.runs))
        seed = ("--seed", str(self.config.seed))
        words += [*seed, *options, *self.feature_cache]
        return self._step(f"{dataset}/comparisons/{name}", words, "--out", needs)

    def training(self, name: str, config: str, data: Sequence[Step], words: Sequence[str]) -> Step:
        """Returns a training of any kind on data sets."""
        train = f"--config.data.train={','.join(str(step.out) for step in data)}"
        return self._step(name, ["train", "--config", config, train, *words], "--workdir", tuple(data))

    def command(self, name: str, words: Sequence[str], needs: Sequence[Step]) -> Step:
        """Returns any other command that takes ``--out``."""
        return self._step(name, words, "--out", tuple(needs))

    @property
    def feature_cache(self) -> tuple[str, ...]:
        """Options by which commands share the features that they compute."""
        return "--cache", str(self.workdir / ".features")

    def _step(self, name: str, words: Sequence[str], option: str, needs: tuple[Step, ...] = ()) -> Step:
        out = self.workdir / name
        return Step(name, (*words, option, str(out)), out, needs)
