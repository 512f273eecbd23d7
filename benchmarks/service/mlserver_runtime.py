"""The guard under MLServer: what a user of MLServer would write."""

import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

from pushforward import Guard


class GuardRuntime(MLModel):
    """Scores rows of numbers by ``guard.assess``."""

    async def load(self) -> bool:
        path = self.settings.parameters.uri
        self.many, self.few = Guard.load(path), Guard.load(path).compile()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        rows = NumpyCodec.decode_input(payload.inputs[0])
        found = (self.few if len(rows) <= 8 else self.many).assess(rows)
        outputs = [
            NumpyCodec.encode_output(name, np.asarray(found[name])) for name in ("p_value", "alarm", "anomaly_score")
        ]
        return InferenceResponse(model_name=self.name, outputs=outputs)
