"""The service: guards behind HTTP, with a queue, a store, alerts, an audit chain and a page (extra ``serve``)."""

from pushforward.service.settings import ServiceSettings, model_files

__all__ = ["ServiceSettings", "model_files"]
