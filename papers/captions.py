"""What the pictures of the reproductions show, in a sentence or two that stand below each picture of a page."""

from __future__ import annotations

import re

__all__ = ["caption"]

_AEF = (
    "From the top: test images; of the AEF reconstructions of them (back), and samples (new); of the VAE the same. "
    "The spots in the middle are the core, which the encoder of the AEF computes."
)
_AGAINST_TIME = (
    "Bits/dim of {images} held-out images against CPU time, one line a seed; dashed: other libraries. The table has the 9,966 test images, on "
    "which all models are {higher} bits/dim higher."
)
_CHAINS = "Test images, samples of the VAE's prior, and the ends of chains of 100 and 1,000 steps from noise. PT: with pretraining."
_SURFACE = (
    "Density on the {surface}, by its two coordinates, without units; brighter is denser, on one scale. Models of the first seed. Exact and "
    "K = 1: trained jointly; M-flow: in two phases."
)

_LONGER = "Test images, and samples after trainings of several lengths, at two temperatures T; the first seed."
_LENGTHS = (
    "After trainings of several lengths, mean and standard deviation over seeds. Left: squared Fréchet distance of samples to test images in "
    "the features of a classifier; dashed: that of other test images. Right: bits/dim."
)
_PATHS = "After the longest training, the first seed: from one test image to another on an arc of latents, and as blends of pixels{moved}."

_PROBES = "The curves of residual networks take one random probe for each 50 images, so the order of lines that are close is not decided."
_PHASES = "The line of the flow trained in sequence starts when its embedding is trained."

_CAPTIONS = {
    "aef-linear": "The linear form for a normal in the plane: its objective rises above the true mean log-density, and an estimate of "
    "log p(x) does not.",
    "aef-curves": "Bound of held-out images against steps, one line a seed.",
    "aef-wide-curves": "Networks of the paper's size: bound of held-out images against steps, one line a seed.",
    "aef-noise": "{set}, {latents} latents. Test images, the same with noise, and what each model makes of them.",
    "bayesian-causes": "AUROC of the std, Fashion-MNIST against MNIST. SGHMC, BBB and SWAG: mean over the seeds; other rows: one seed. All "
    "models share the noise of the bound, or each has its own; the bound has K draws. Colors begin at 50.",
    "bayesian-auroc": "AUROC of each score, by model, training set and method, one seed. The VAE has a discretized logistic.",
    "cef-sphere": "Density on the sphere, by angle around its axis (across, one turn) and height (up, -1 to 1): the truth, a flow trained jointly with its embedding, "
    "and one after the other. Brighter is denser, on one scale.",
    "cygen-toy": "Data, and samples: ends of chains of 100 steps from noise, for the VAE from its prior. PT: with pretraining.",
    "cygen-samples": _CHAINS,
    "glow-samples": "Test images, and samples at three temperatures T.",
    "glow-attributes": "From left to right: a test image, moved along the difference of the latent means of two classes, from -0.5 to 1.5 times that difference.",
    "glow-longer-curves": _LENGTHS,
    "glow-longer-samples": _LONGER,
    "glow-longer-paths": _PATHS.format(
        moved="; and a test image moved along the difference of the latent means of two classes, from -0.5 to 1.5 times that difference"
    ),
    "iaf-cifar10-training": "Bound of held-out images of CIFAR-10 against CPU time, one seed. PixelCNN++: its exact likelihood of the "
    "same images, from the page of Nalisnick et al.",
    "inflow-power": "Fraction of batches that each test rejects at 5% (the gray line), by batch size, for Fashion-MNIST itself and three "
    "other sets; gray: Fashion-MNIST with a third of its contrast.",
    "maf-bsds300": "Left: log-likelihood of validation patches, which are of other photographs than the test patches, against steps; the axis converts steps to minutes of CPU time by a speed that was measured before. One seed. "
    "Right: of test patches at the end, and as published.",
    "nalisnick-curves": "Models of CIFAR-10. Left: bits/dim of test images and of other sets; right: AUROC of -log p, where 0.5 is chance.",
    "nalisnick-gaps": "Mean log p of other sets less that of test images of Fashion-MNIST, predicted and observed; gray: equal. Both scales "
    "are logarithmic away from 0.",
    "nalisnick-graying": "Mean log p of images that are mixed with the mean image, by its fraction.",
    "nalisnick-histograms": "Log p of test images of both sets, one row a model, trained on Fashion-MNIST (left) and MNIST (right). The "
    "first bar also has all lower values. Height: fraction of the images. A constant-volume flow without another name has a Student-t base.",
    "nalisnick-terms": "The two terms of log p of test images, for models of Fashion-MNIST: density of the base (Student-t for the constant-volume flow), and "
    "volume. Height: fraction of the images.",
    "nalisnick-variants": "As the picture of gaps, for the flows and images that the titles name. A constant-volume flow without another name has a Student-t base.",
    "nice-samples": "Test images; the same with the lower half filled by gradient ascent on the likelihood; samples.",
    "nsf-samples": "Test images, and samples of each model after equal steps.",
    "realnvp-samples": "Samples, and at temperature 0.7; from one test image to another in latent space, and in pixels.",
    "realnvp-longer-curves": _LENGTHS,
    "realnvp-longer-samples": _LONGER,
    "realnvp-longer-paths": _PATHS.format(moved=""),
    "realnvp-deep-longer-curves": _LENGTHS,
    "realnvp-deep-longer-samples": _LONGER,
    "realnvp-deep-longer-paths": _PATHS.format(moved=""),
    "rectangular-circle": "Density by angle in radians, models of the first seed. Exact: trained jointly; its density rises above the truth near the cut of the circle, and its "
    "samples do not. High values are cut off.",
    "rectangular-sphere": _SURFACE.format(surface="sphere"),
    "rectangular-Swiss-roll": _SURFACE.format(surface="Swiss roll in R^3"),
    "rectangular-total-variation": "Total variation of samples to the truth, with the standard deviation over seeds.",
    "rectangular-overfitting": "A flow on the plane for data on a circle, one line a seed. Its likelihood and that of the truth have different "
    "measures. Black: models on the curve, whose lines lie on each other.",
    "rectangular-images": "Test images, and samples of models of the first seed. RNF: trained jointly; M-flow: in two phases.",
    "reviews-equal-time": "Mean and standard deviation over seeds. Bold: the best of a column, with its own value. Other cells: how far behind it, "
    "in nats, and for images in bits/dim.",
    "reviews-families": "Data, and densities after equal steps, first seed.",
    "reviews-images": "Test images, and samples after 300 s of CPU time each, one seed, of the run with a PixelCNN (not the PixelCNN++ of the table of equal time).",
    "two-step-samples-fashion-mnist": "Fashion-MNIST, one seed. Samples of each first step: of its own prior, and with four densities of its codes.",
    "two-step-samples-mnist": "MNIST, one seed. Samples of each first step: of its own prior, and with four densities of its codes.",
}


def caption(picture: str) -> str:
    """The caption of a picture, by its file name or how that begins; "" if it has none.

    Example:
        >>> caption("aef-curves.png")
        'Bound of held-out images against steps, one line a seed.'
    """
    if picture.endswith("-against-time.png"):
        few = picture.startswith("iresnet")
        text = _AGAINST_TIME.format(
            images="200 (Glow: 500)" if few else 500, higher="0.07 to 0.17" if few else "0.05 to 0.1"
        )
        return text + (f" {_PROBES}" if few else "") + (f" {_PHASES}" if picture.startswith("cef") else "")
    latents = re.search(r"-(\d+)\.png$", picture)
    if part := re.match(r"aef-(wide-)?(mnist|fashion-mnist)\b", picture):
        name = {"mnist": "MNIST", "fashion-mnist": "Fashion-MNIST"}[part[2]]
        size = ", networks of the paper's size" if part[1] else ""
        return f"{name}{f', {latents[1]} latents' if latents else ''}{size}. {_AEF}"
    begins = [each for each in _CAPTIONS if picture.startswith(each)]
    text = _CAPTIONS[max(begins, key=len)] if begins else ""
    name = "Fashion-MNIST" if "fashion-mnist" in picture else "MNIST"
    return text.replace("{latents}", latents[1] if latents else "").replace("{set}", name)
