"""The order of the gallery: sections, and in each the simplest example first."""

from __future__ import annotations

SECTIONS = {
    "guards": "credit_reasons explain_thyroid missing_values promise_1000_redraws time_ordered drift_sensor fdr_batch abstain risk_coverage",
    "densities": "first_density conditional_density bounded_density angles earthquakes_sphere integers mixed_table map_of_flows",
    "images": "paradox embed_photographs embed_texts glow_temperature interpolation inpainting two_step_manifold",
    "inference": "eight_schools_k_hat simulator_posterior posterior_checks",
    "operation": "scaling_rows compile_scorer serve_and_call save_load_signature",
    "extending": "write_transform write_score write_model",
}
ORDER = [f"plot_{name}.py" for names in SECTIONS.values() for name in names.split()]


class Order:
    """The place of a script in its section; sphinx-gallery makes one for each folder."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __call__(self, file: str) -> int:
        """Sort by the list above; a script that is not there comes last."""
        return ORDER.index(file) if file in ORDER else len(ORDER)

    def __repr__(self) -> str:
        """The same text for each folder, so that sphinx builds only what changed."""
        return "Order"
