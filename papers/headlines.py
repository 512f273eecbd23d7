"""The headline claims of the papers: what each abstract says, and what the reports of this project say of it.

A verdict is one of four. Evidence names findings of the paper's report by how their claims begin, so a verdict that the report
does not support fails a test (`tests/papers/test_headlines.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from papers.report import Report
    from papers.reproduction import Finding

__all__ = ["HEADLINES", "HELD", "NOT_HERE", "NOT_SETTLED", "PARTLY", "Headline"]

HELD, PARTLY, NOT_HERE, NOT_SETTLED = "held", "held in part", "does not hold here", "not settled at this scale"


@dataclass(frozen=True)
class Headline:
    """A headline claim of a paper, and what was found.

    Attributes:
        paper: name of the reproduction.
        says: what the abstract says, in our words.
        verdict: one of the four.
        scale: of the evidence.
        evidence: how the claims of the findings begin.
        later: further evidence, which only reports of long and full runs have.
        earlier: how the claims begin that are evidence in the report of a shorter run, which the page then shows too.
        main: how the claim of the finding begins whose figure the index shows; "" for the first of the evidence.
        note: where it stops, what was tried, or what a larger machine would have to show; its first sentence is for the index.
    """

    paper: str
    says: str
    verdict: str
    scale: str
    evidence: tuple[str, ...]
    note: str = ""
    later: tuple[str, ...] = ()
    earlier: tuple[str, ...] = ()
    main: str = ""

    def beginnings(self, report: Report) -> tuple[str, ...]:
        """How the claims of a report begin that are the evidence."""
        return self.evidence + (self.later if report.budget in ("long", "full") else ())

    def findings(self, report: Report) -> list[Finding]:
        """The findings of a report that are the evidence."""
        return [finding for finding in report.findings if finding.claim.startswith(self.beginnings(report))]

    def figure(self, report: Report, most: int = 130) -> str:
        """The figure of the main finding, shortened at the end of a part if it is longer than ``most`` characters; else a dash."""
        found = [finding for finding in self.findings(report) if finding.claim.startswith(self.main)]
        if not found:
            return "–"  # a shorter run
        text = found[0].ours
        if len(text) <= most:
            return text
        ends = [text.rfind(mark, 0, most) for mark in ("; ", ", ", " ")]
        return text[: next((end for end in ends if end > most / 2), most)] + " …"

    def missing(self, report: Report) -> str:
        """The first beginning of a claim that a report does not have; "" if it has all."""
        claims = [finding.claim for finding in report.findings]
        return next((each for each in self.beginnings(report) if not any(c.startswith(each) for c in claims)), "")

    def contradiction(self, report: Report, shorter: Report | None = None) -> str:
        """Why the report, and that of a shorter run, do not support the verdict; "" if they do. "Held in part" may be more modest than the findings."""
        if missing := self.missing(report):
            return f"the report of {self.paper} has no claim that begins with {missing!r}"
        before = [] if shorter is None else [each for each in shorter.findings if each.claim.startswith(self.earlier)]
        confirmed = [finding.confirmed is True for finding in [*self.findings(report), *before]]
        wanted = {HELD: all(confirmed), PARTLY: any(confirmed), NOT_HERE: not any(confirmed)}
        if not wanted.get(self.verdict, True):
            return f"{sum(confirmed)} of {len(confirmed)} findings are confirmed, which is not {self.verdict!r}"
        return ""


def of(paper: str) -> Sequence[Headline]:
    """The headlines of a paper."""
    return [headline for headline in HEADLINES if headline.paper == paper]


_DIGITS = "Fashion-MNIST and MNIST, minutes, one seed"

HEADLINES = (
    Headline(
        "aef", "an exact autoencoder beats an equal VAE in likelihood, samples and denoising", PARTLY,
        "2, 8 and 32 latents, MNIST and Fashion-MNIST, 10,000 steps, 3 seeds; denoising with 2 and 32 latents, MNIST, 3 seeds",
        ("a partition AEF has the higher likelihood", "its samples are nearer"),
        "in likelihood with 2 latents on MNIST, and in no other clear way. The paper claims it mostly for codes of few dimensions. With 2 latents its likelihood is higher on MNIST (2.148 against 2.157 bits/dim), and in the mean on Fashion-MNIST (4.346 against 4.388; three seeds do not make that clear); its samples are nearer in the mean on both, within the spread. "
        "With 8 latents the two are within the spread of each other (1.848 against 1.857 and 3.920 against 3.912). With 32 they are level on MNIST (1.665 against 1.664) and the VAE is ahead in the mean on Fashion-MNIST (3.734 against 3.714), its samples are nearer (clearly so on MNIST), and "
        "so are its reconstructions. Denoising: with 2 latents the linear form is nearer to the clean images in each of three seeds (56.0 against 56.3 gray levels), with 32 the VAE is (34.7 against 30.4); the partition, whose "
        "likelihoods these are, is behind with both (57.4 and 42.3). So the lead shrinks with the size of the code. A larger machine would have to show whether the paper's 100,000 steps and wider networks change that: the curves flatten towards "
        "10,000 steps because the learning rate falls to 0 there, and with 32 latents on Fashion-MNIST the last 3,000 steps still gain 0.01 to 0.04 bits/dim.",
        later=("the linear form removes noise better",), main="a partition AEF has the higher likelihood than a VAE of the same networks at 2 latents, on mnist",
    ),
    Headline(
        "bayesian", "the std and the entropy of log-likelihoods beat disagreement, WAIC and typicality", PARTLY,
        "VAEs with convolutions and with one hidden layer of 400, Fashion-MNIST against MNIST, 12,000 steps, 5 seeds; both directions and a flow 400 steps, one seed",
        ("VAE, fashion-mnist against mnist", "VAE, mnist against fashion-mnist", "the entropy of the normalized"),
        "as in the paper with its likelihood, a Bernoulli on gray levels, and not with a discretized logistic or a flow. With convolutional networks, whose test rows have the authors' likelihood, the std has 99.1 with SGHMC and 98.8 with BBB "
        "(99.6 from the scores that the authors released) and is the best score in every run. Two things detect there, each on its own: the posterior of the weights, with noise of the bound that all models share (98.2 and 97.3), and the noise, "
        "in one model that is evaluated many times (98.6). With one hidden layer the noise alone has 98.4 and the posterior alone 83.2 with SGHMC and 88.7 with BBB. The std of SWAG, which has 19.9 from the authors' scores, has 90.6 here with both networks "
        "and shared noise, with a scale that held-out rows choose. The 53.7 of SGHMC in the first row below has a discretized logistic and 400 steps of training; it becomes 76.6 after 12,000 steps on six times as many images and with a longer chain, "
        "83.2 with the likelihood of the paper too, 98.2 with convolutions too, and 99.1 with noise of its own for each model. With a discretized logistic the posterior alone has 76.6, 61.0 and 42.1 (SGHMC, BBB, SWAG), and it does not carry over to a "
        "flow of 400 steps and one seed, which has no noise of the bound. Open: flows with more steps and five seeds.",
        later=(
            "with the paper's likelihood, a Bernoulli", "a part of the std is the noise of the bound", "with convolutional networks the std of models",
            "with convolutional networks the posterior of the weights", "with the paper's likelihood SWAG's std does not detect",
        ), main="with convolutional networks the posterior of the weights",
    ),
    Headline(
        "cef", "an embedding and the density on it can be trained jointly, with an exact and cheap volume", HELD,
        "sphere in R^3, 3,000 steps, 3 seeds; CIFAR-10 (9,500 training images), 12 minutes of CPU time each, one seed",
        ("trained jointly, a conformal embedding", "an ambient flow learns the sphere worse"),
        "on a sphere, and no better than one after the other on CIFAR-10 with one seed. There, after 12 minutes of CPU time each, a flat embedding of 512 of 3,072 coordinates has 5.779 bits/dim trained jointly and 5.759 trained in sequence, "
        "where a normal density of the way to the manifold is a part of the likelihood; a flow of all pixels has 3.766. Reconstructions of both are off by 9.6 gray levels, those of 512 principal components by 8.4 "
        "(`docs/papers/images-against-time-long.jsonl`). Open: further seeds.",
        later=("an embedding and the density on it are trained jointly at least as well",),
    ),
    Headline(
        "cef", "the family is restricted to angle-preserving maps", HELD, "Swiss roll, 1,500 steps, 2 seeds",
        ("a conformal embedding without pieces",),
    ),
    Headline(
        "cygen", "a cyclic pair generates better samples than a VAE, without a prior", PARTLY,
        "eight Gaussians, 1,500 steps; MNIST and Fashion-MNIST, 9,000 steps; 3 seeds",
        ("chains of CyGen from noise", "(not the paper's) chains keep the distribution"),
        "with pretraining clearly better on eight Gaussians, and level on images with the chains of a VAE that are as long. Samples of its chains are nearer to images than those from the prior of a VAE on both sets (0.025 against 0.050 on MNIST, 0.010 "
        "against 0.031 on Fashion-MNIST); chains of a VAE have 0.026 and 0.012, within the spread. Without pretraining it is level with the VAE on eight Gaussians. Chains ten times as long drift: in the "
        "fractions of the modes, not in their shapes, and as much as rare jumps between modes explain. If half of the chains start again from data after every 100 steps, the drift is bounded, "
        "and an acceptance step with a classifier removes most of it; four other trainings do not.",
        later=("samples of CyGen are nearer to images of mnist", "samples of CyGen are nearer to images of fashion-mnist"),
    ),
    Headline(
        "cygen", "its codes are better for classification", PARTLY, "MNIST and Fashion-MNIST, 3 seeds; ten nearest neighbors",
        ("digits are classified better",), "by 0.3 points on MNIST after 900 steps; after 9,000 steps its codes and those of a VAE and a DAE are level, 96.5 to 96.6 % and 85.2 to 85.3 %.",
        later=("codes of mnist are classified", "codes of fashion-mnist are classified"),
    ),
    Headline(
        "funnels", "exact likelihood with fewer dimensions is as good as a flow of full width", HELD,
        "a circle (one seed), two tables of UCI, Fashion-MNIST, 3 seeds; CIFAR-10, 12 minutes of CPU time each, one seed", ("a funnel from 8", "at 5 of 10", "at 4 of 9", "at 392 of 784"),
        "and on CIFAR-10 with one seed. After 12 minutes of CPU time each a funnel to 1,536 of 3,072 coordinates has 3.825 bits/dim, the flow of full width 3.903, that of nflows 3.923 and Glow of normflows 3.860 "
        "(`docs/papers/images-against-time-long.jsonl`). Our Glow, another flow of full width, is ahead of the funnel: 3.766 there, and 3.107 against 3.142 on Fashion-MNIST after 150 s of CPU time each (`reviews`). Open: further seeds.",
        later=("at 1,536 of 3,072",), main="at 392 of 784",
    ),
    Headline(
        "glow", "an invertible 1 x 1 convolution beats fixed permutations of the channels", HELD, "Fashion-MNIST, equal steps, 3 seeds",
        ("an invertible 1 x 1 convolution beats",),
        "on Fashion-MNIST after equal steps, and on CIFAR-10 with one seed. The paper shows CIFAR-10. There, after 12 minutes of CPU time each and with one seed so far, 1 x 1 convolutions have 3.766 bits/dim, a fixed shuffle 3.834 and a reversal 3.862, "
        "and Glow of nflows 3.797 and of normflows 3.860 (`docs/papers/images-against-time-long.jsonl`). The abstract also says that the likelihood is better than before, and that samples look real. On Fashion-MNIST, after 300 s of CPU time each and with one seed, Glow has 3.406 bits/dim and Real NVP 4.327 (`reviews`). Samples are noise at this scale; the paper trains 32 layers a scale, 512 wide, on eight GPUs. Open: further seeds.",
        later=("an invertible 1 x 1 convolution beats fixed permutations of the channels at equal CPU time",),
    ),
    Headline(
        "glow", "latents interpolate and change attributes", PARTLY, "Fashion-MNIST, a linear classifier of pixels instead of pictures",
        ("moving along the difference", "samples at lower temperature"),
        "the classifier says so, and the pictures do not look like the other class. A T-shirt that is moved towards pullovers gets noise and white areas where sleeves would be. Interpolation is measured for Real NVP.", main="moving along",
    ),
    Headline(
        "iaf", "an IAF posterior beats a diagonal one by a nat", HELD, "MNIST, 10,000 steps, 5 seeds, two layers of 300; a residual VAE of CIFAR-10 (9,500 training images), 100 minutes of CPU time each, one seed",
        ("an IAF posterior beats a diagonal one",),
        "by 1.3 nats on MNIST (0.9 to 1.6 by seed). By an earlier criterion, more than a nat with every seed, one of five fails (0.94). That is at 93 nats, where the paper's long runs have 81; 1.0 after 1,500 steps. CIFAR-10, six stochastic layers: 4.038 against 4.204 bits/dim after equal steps, 354 nats an image, and against 4.156 "
        "after equal CPU time, 251 nats; the paper's model of 20 layers has 3.11. The abstract also says that such a VAE is competitive with autoregressive models and faster in synthesis. A PixelCNN++ has 3.486 bits/dim after 108 minutes of CPU time (`nalisnick`), so it is not competitive at this scale, and the time of samples is not measured.",
        main="an IAF posterior beats a diagonal one", later=("a residual VAE of CIFAR-10",),
    ),
    Headline(
        "inflow", "batches from another data set are detected", HELD, _DIGITS, ("batches of 250", "batches of 10 from"),
    ),
    Headline(
        "inflow", "single inputs from another data set are separated nearly perfectly", NOT_HERE, _DIGITS,
        ("single images from another set", "single images are separated nearly"),
        "tried: the paper's gate, a conformal kernel mean, -log p of the flow. None of the paper's own figures was at hand, so this is the claim as the released code states it. Such a separation needs an open gate for rows like the training data, which that code has: AUROC 1.000, and 0.292 if every batch has a tenth of outliers.",
        main="single images are separated",
    ),
    Headline(
        "inflow", "adversarial inputs are detected", PARTLY, _DIGITS,
        ("adversarial inputs are detected", "an attacker who raises", "images that are changed so that a classifier errs"),
        "by the likelihood of the flow, not by the gate. Images that FGSM or 20 steps of it change by 8 to 64 gray levels so that a classifier errs have AUROC 0.949 to 1.000 of -log p, and the gate rejects no batch of 50 of them. "
        "Of three batches whose likelihood an attacker lowers the gate rejects none after changes of 8 levels and two after changes of 64. Of outliers whose likelihood is raised it rejects all three, but none if the attacker knows it and may change 64 levels. The kernel "
        "mean of single images detects 5 to 15 % of the changed images of Fashion-MNIST. Attacks that search for the smallest change (DeepFool, Carlini and Wagner) were not run.",
        main="images that are changed so that a classifier errs are less likely",
    ),
    Headline(
        "iresnet", "one residual network classifies and models the density", HELD, "8 x 8 digits, vectors and images, one seed",
        ("one i-ResNet classifies", "one convolutional i-ResNet classifies"),
        "ahead of a normal and of independent pixels, and behind the same kind of network without classes. As vectors it has 2.944 bits/dim, where a normal has 2.954 and an i-ResNet for the density alone 2.915; "
        "as images 2.322, where independent pixels have 2.425 and an i-ResNet for the density alone 2.209. No classifier was trained for comparison, so a larger run would have to show how much of either task the network gives up.",
    ),
    Headline(
        "iresnet", "an unbiased series beats a cut one (residual flows)", PARTLY, "8 x 8 digits, 3 seeds (images: 2); CIFAR-10, 12 minutes of CPU time each, one seed",
        ("the residual flow beats the biased", "on images the residual flow beats"),
        "the residual flow is ahead, but the series need not be the reason. It also has another activation, and the bias of a series of five terms is smaller than the lead: 2.892 ± 0.024 for 2.915 bits/dim, and 2.204 for 2.213 on images, "
        "where the lead is 0.08 and 0.07. On CIFAR-10 (9,500 training images, 12 minutes of CPU time each, one seed so far) the i-ResNet leads with 4.350 bits/dim against 4.436 of the residual flow, which makes two thirds of its steps; the same flow with a cut series has "
        "4.467. All are scored by the unbiased series; by their own cut series they would have 4.086 and 4.259, so the bias is large there. A residual flow of normflows of the same size has 4.538 at a rate of 0.01 (`docs/papers/images-against-time-long.jsonl`); after a tenth of the time a rate of 0.03, tried later, is ahead of that one (5.368 against 5.409), so it can do better. Open: further seeds.", main="the residual flow beats the biased",
        later=("on images the residual flow beats the biased i-ResNet at equal CPU time",),
    ),
    Headline(
        "maf", "a stack of MADEs fits what one in the wrong order cannot", HELD, "the paper's figure 1", ("one MADE in the wrong order",),
    ),
    Headline(
        "maf", "MAF beats Real NVP on tables", HELD, "six tables by the paper's recipe, until level or 20 minutes of CPU time, 3 seeds; BSDS300, 40 minutes, one seed", ("MAF beats Real NVP of",),
        "ahead in five of six tables, level on protein, and ahead on BSDS300. There MAF (5) has 153.78 nats after 40 minutes of CPU time (± 0.28, two standard errors over test patches; the paper 155.69), Real NVP with five and ten layers 151.78 and 152.68 (152.97 and 153.28), and "
        "MAF MoG 154.08 (156.36); MADE MoG has 153.99 (153.71), level with MAF and MAF MoG and behind them in the paper, and spline couplings lead with 155.82 (157.54), as in theirs. Of 36 runs on tables 33 were level in this time; those of MAF on protein were not. All curves of BSDS300 still rise (by 0.2 to 0.6 nats in the last quarter), so "
        "a larger machine would have to show the rest. After 600 steps of another recipe (`--budget quick`) MAF is ahead in two of four tables and behind in two. docs/measurements/densities.md has the same flows in zuko and nflows.",
        later=("MAF beats Real NVP on patches",), main="MAF beats Real NVP of",
    ),
    Headline(
        "nalisnick", "flows, VAEs and PixelCNNs find other data more likely than test data", PARTLY, "Fashion-MNIST against MNIST, minutes a model; CIFAR-10, 108 minutes a model",
        ("constant-volume flow: trained on", "constant-volume flow, logistic base: trained on", "constant-volume flow, normal base: trained on", "affine flow: trained on", "PixelCNN: trained on", "VAE: trained on"),
        "Fashion-MNIST against MNIST yes, but for flows of constant volume only with a base of heavy tails; of CIFAR-10 X-rays yes, traffic signs no. With a logistic or a normal base the AUROC of a flow of constant volume is 0.445 and 0.534. Photographs of CIFAR-10 in color, Glow and PixelCNN++, 108 minutes of CPU time each, 3.716 and 3.486 bits/dim, one seed: X-rays (AUROC 0.02 and 0.01) and photographs that are grayed by half (0.18 and 0.21) are more likely "
        "than test images, and traffic signs (0.56 and 0.55) are not: their pixels vary more than those of CIFAR-10. PixelCNN++ found them more likely (0.42) only in the first tenth of its training. SVHN, the paper's other set, is "
        "not available here.",
    ),
    Headline(
        "nalisnick", "for a flow of constant volume, moments of the data and a Hessian predict it", PARTLY,
        "Fashion-MNIST (eight other sets, three bases) and photographs of CIFAR-10 in gray against X-rays, minutes, one seed",
        ("constant-volume flow: two moments", "constant-volume flow, logistic base: two moments", "constant-volume flow, normal base: two moments",
         "one constant-volume flow shows the inversion"), main="constant-volume flow, normal base", note=
        "photographs and X-rays yes, Fashion-MNIST and MNIST in part. With a normal or a logistic base one flow of photographs finds X-rays likelier (AUROC 0.17 and 0.18), and all clear gaps have the predicted sign. "
        "Fashion-MNIST against MNIST: all signs are right with these bases, but most digits are not likelier there; a base of heavy tails inverts the pair, and has 5 of 8 signs. "
        "With the same trained layers the base alone decides. Glow and PixelCNN++ of photographs in color, after 108 minutes each, follow the variance of the pixels too: two sets vary more than CIFAR-10 and are less likely, two vary less and are more likely, for both "
        "models.",
    ),
    Headline(
        "nice", "couplings of constant volume model images exactly", HELD, "MNIST, 4,000 steps, 3 seeds", ("log-likelihood of MNIST", "the couplings learn"),
    ),
    Headline(
        "nice", "the model can fill in missing parts of images", PARTLY, "MNIST, the lower half of 12 images, 4,000 steps, one seed",
        ("inpainting by gradient ascent",),
        "the likelihood rises, and the pictures are not digits. It rises above that of the whole images, and the filled halves are gray and noisy areas. The steps are without the noise that the paper adds to them.",
    ),
    Headline(
        "nsf", "spline couplings beat affine ones", PARTLY, "Fashion-MNIST, 200 equal steps, 3 seeds (the figure); CIFAR-10, 12 minutes of CPU time each, one seed", ("spline couplings beat", "affine couplings beat"),
        "a Real NVP after equal steps, not the same flow with affine couplings at equal CPU time. The figure is of a Real NVP with its own masks. In the same Glow of CIFAR-10, with one seed so far, splines have 3.859 bits/dim and affine couplings 3.849, in 5,073 and "
        "7,325 steps; in nflows 4.035 and 3.970 (`docs/papers/images-against-time-long.jsonl`). On Fashion-MNIST, after 150 s each, a spline flow has 3.189 and Glow 3.107, with each of three seeds (`reviews`). The paper trains for 200,000 steps and finds a "
        "difference of 0.03, so longer runs would have to show it. On patches of photographs (BSDS300) spline couplings lead all flows that were tried, as in the paper (`maf`). Open: further seeds.",
        main="spline couplings beat", later=("spline couplings beat affine ones at equal CPU time",),
    ),
    Headline(
        "nsf", "splines improve variational autoencoders", HELD, "MNIST, 1,500 steps, 3 seeds; 104 nats, where the paper's long runs have 80",
        ("splines as posterior and prior", "and are at least level with IAF"),
    ),
    Headline(
        "nxn", "n x n convolutions beat 1 x 1 ones", PARTLY, "correlated noise, and Fashion-MNIST at equal parameters and steps, 3 seeds",
        ("a 1 x 1 convolution cannot", "two convolutions in opposite", "n x n convolutions beat"),
        "at equal parameters and steps, not at equal time on Fashion-MNIST. There, after 150 s of CPU time each, Glow with n x n convolutions has 3.117 bits/dim and with 1 x 1 ones 3.107, which is ahead with each of three seeds (`reviews`). On CIFAR-10, after 12 minutes of CPU time each, at equal parameters and with one seed so far, causal and emerging 3 x 3 convolutions have 3.749 and 3.743 bits/dim and 1 x 1 ones 3.766 (`docs/papers/images-against-time-long.jsonl`). Open: further seeds.",
        main="n x n convolutions beat",
        later=("n x n convolutions beat 1 x 1 ones in Glow at equal parameters and CPU time",),
    ),
    Headline(
        "realnvp", "affine couplings at several scales beat NICE, and latents interpolate", HELD, "Fashion-MNIST, 200 steps, 3 seeds; interpolation one seed",
        ("multi-scale affine couplings", "interpolation in latent space"), "after equal steps, and after equal time too: NICE then has 6.389.",
    ),
    Headline(
        "rectangular", "training manifold and density jointly beats two phases", PARTLY,
        "circle, sphere, Swiss roll in R^3 and R^20: 1,500 steps and 3 seeds, at most 18,000 steps and 5 seeds (the figure); two tables, 5 seeds; MNIST and Fashion-MNIST, 3 seeds, with multi-scale couplings one",
        ("circle: trained jointly", "sphere: trained jointly", "Swiss roll: trained jointly", "Swiss roll in R^20: trained jointly", "trained jointly, samples are nearer"),
        "after 1,500 steps clearly on three surfaces, and after up to 18,000 steps clearly on none. After 1,500 steps (`--budget quick --seeds 3`) joint training has a total variation of 0.046 ± 0.009 on the circle, where two phases have 0.117 ± 0.015, 0.129 ± 0.054 against 0.215 ± 0.010 "
        "on the Swiss roll in R^3, and 0.104 ± 0.032 against 0.266 ± 0.004 on that in R^20; the two are within the spread on the sphere (0.053 ± 0.003 against 0.061 ± 0.001) and on the tables. In the longer run each phase ended when six stages of 1,500 steps were over or when it was level; "
        "most ended at the limit. Total variation is then level with that of two phases on the sphere (0.046 ± 0.002 against 0.048 ± 0.001) and on the Swiss roll in R^20 (0.051 ± 0.002 each), and lower in the mean on the circle "
        "(0.041 ± 0.004 against 0.068 ± 0.057; in two of five seeds two phases are better) and on the Swiss roll in R^3 (0.055 ± 0.003 against 0.077 ± 0.022, each seed), which is not clear: the worst joint run would have to be below the best one in two "
        "phases by more than true samples differ. On the circle the density that the joint model gives to points of the circle has an integral of 1.65, that of two phases 0.99: a line that tears the circle open gives some of its points the same code, so there only the samples count. "
        "The free form, whose encoder and decoder are any networks, misses the Swiss roll in R^20 with two of five seeds (0.89), and a conformal embedding with all (0.92). On tables, trained so, joint training is nearer on protein with each of five seeds (0.27 ± 0.21 against "
        "0.33 ± 0.24, within the spread), and on kin40k two phases miss the data with one of five seeds (61 ± 135 against 0.22 ± 0.08). On images with couplings of flat pixels samples of two phases are at least as near to test images (0.0063 ± 0.0003 against 0.0058 ± 0.0002 on MNIST, 0.0048 ± 0.0009 against 0.0038 ± 0.0007 on Fashion-MNIST; 3 seeds), and "
        "reconstructions of joint training are nearer (26.7 against 28.6 and 27.0 against 28.3 gray levels). With multi-scale couplings, one seed and 1,200 steps, its samples are nearer on MNIST (0.062 against 0.074) and level on Fashion-MNIST (0.054 against 0.053), and its reconstructions nearer on both (48.6 against 54.1 and 43.5 against 47.3). "
        "These networks are far from level, and have a quarter of the paper's channels; a larger machine would have to show them after as many steps as the flat ones.",
        later=("on images, trained jointly", "on images with multi-scale couplings, trained jointly"),
        earlier=("circle: trained jointly", "sphere: trained jointly", "Swiss roll: trained jointly", "Swiss roll in R^20: trained jointly"),
    ),
    Headline(
        "rectangular", "the gradient of the volume can be estimated without its matrix", HELD, "sphere, Swiss roll in R^3 and R^20, 1,500 steps, 3 seeds, and at most 18,000 steps, 5 seeds; steps of 784 coordinates",
        ("sphere: the stochastic gradient", "Swiss roll: the stochastic gradient", "Swiss roll in R^20: the stochastic gradient", "the stochastic gradient is cheaper"),
        "cheaper only where the manifold has many dimensions.",
    ),
    Headline(
        "rectangular", "a likelihood on the manifold detects other data", PARTLY, "MNIST and Fashion-MNIST, 3,000 steps and 3 seeds with couplings of flat pixels, 1,200 steps and one seed with multi-scale couplings",
        (),
        "with couplings of flat pixels in both directions, with multi-scale couplings not from Fashion-MNIST to MNIST. With flat couplings the density has an AUROC of 0.94 on Fashion-MNIST for a model of MNIST and 0.87 in reverse, where two phases have "
        "0.94 and 0.89. With multi-scale couplings it has 0.90 and 0.51. The distance to the manifold detects with each of them (0.93 to 0.99). The paper finds its threshold with known anomalies of the same kind, which these figures do not "
        "use. A larger machine would have to show the multi-scale couplings after as many steps as the flat ones.",
        later=("on images, a likelihood on the manifold", "on images with multi-scale couplings, a likelihood on the manifold"),
    ),
    Headline(
        "reviews", "(ours; the reviews only collect figures) universal transformers and autoregressive models are ahead of affine couplings", PARTLY,
        "two densities in the plane, 300 steps, 3 seeds; 29 families of vectors after 20 s of CPU time and 14 of images after 150 s, 3 seeds",
        ("on checkerboard", "on spirals", "flow matching trains", "an autoregressive model of pixels"),
        "on six of seven sets of vectors by the median rank, not on protein, and on images a PixelCNN++ is level with Glow. After equal time on four densities in the plane and three tables a funnel, MAF with mixtures and splines have the best mean ranks. "
        "Of 14 families of images a PixelCNN++ leads after equal time with 3.092 bits/dim, within the spread of Glow (0.015 ± 0.018 behind, and a bound). Another run, with larger models, batches of 64 and one seed, has after 300 s a spline flow at 3.327, Glow at "
        "3.406, a PixelCNN at 3.438 and Real NVP at 4.327.",
        later=("after equal time, universal transformers",), main="on checkerboard",
    ),
    Headline(
        "survey", "(ours, after the survey) likelihoods of simple models work on tables, and protocols decide rankings", HELD, "14 tables of ADBench, 3 seeds; Fashion-MNIST and MNIST, one seed",
        ("the inversion of likelihoods", "training on the first half", "small tables that are filled up"),
    ),
    Headline(
        "two-step", "a likelihood on the whole space overfits a manifold", PARTLY, "circle, 10,000 steps, 5 seeds",
        ("a density on the plane has no highest likelihood",),
        "the likelihood rises, and how far the distribution is off depends on the training. It rises from 2.026 to 3.222 nats between 1,000 and 10,000 steps, as the theorem says. The total variation of the angles is then 0.050 ± 0.011, that of two steps 0.047 ± 0.008, and that of as many true samples 0.014, "
        "so on this circle two steps are no better. Trained in stages, each from the best weights of the last (page of rectangular flows), such a flow has 0.151 ± 0.063 on a circle, at 3.91 ± 0.15 nats, and 0.135 to 0.170 on "
        "three surfaces, where two steps have 0.062 to 0.064.",
    ),
    Headline(
        "two-step", "an autoencoder and a density of its codes learn the distribution", PARTLY, "a circle and an arc of 270 degrees, 10,000 steps, 5 seeds; three surfaces, at most 18,000 steps, 5 seeds (page of rectangular flows)",
        ("two steps learn the distribution of the angles",),
        "on an arc and on three surfaces, not on a circle. On the arc the total variation is 0.015 (as many true samples have 0.013), where a flow on the plane has 0.038. On the circle it is 0.047 against 0.050: a code of one number tears the circle, and the "
        "10,000 training rows have 0.031 themselves. "
        "With 5 seeds and at most 18,000 steps, which most runs reached, two steps have 0.062 ± 0.005 on the sphere, 0.064 ± 0.005 on the Swiss roll in R^3 and 0.063 ± 0.005 on that in R^20, and a flow of the space 0.150 ± 0.017, 0.135 ± 0.023 and 0.170 ± 0.011.",
        later=("on an arc",), main="on an arc",
    ),
    Headline(
        "two-step", "the second step makes better samples and detects other data", PARTLY, "samples of MNIST, detection with MNIST and Fashion-MNIST; 10,000 steps, 3 seeds",
        ("trained on fashion-mnist, the density", "trained on mnist, the density", "a second step makes better samples"),
        "better samples yes, and detection of MNIST by a model of Fashion-MNIST; in reverse a flow on pixels is better. Samples with a flow of the codes are nearer to test images than those of each first step's prior, at 0.005 to 0.007 against 0.012 to 0.015. With Fashion-MNIST for training the density on the manifold detects MNIST (AE+NF 0.93), "
        "where a flow of couplings on pixels is inverted (0.03) and one of constant volume is not (0.95); with known anomalies and a stump WAE+NF has 93.3 % (the paper: 98.07 %). "
        "With MNIST for training both detect Fashion-MNIST, and the flow on pixels better.",
        later=("fashion-mnist against mnist with a decision stump",),
    ),
)  # fmt: skip
"""In the order of the reproductions."""
