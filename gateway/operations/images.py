"""Images of environments: build one, and write down what was built."""

from collections.abc import Callable

from gateway.engines.image_builder import BuildProgress, ImageBuilder
from gateway.images.build import BuildPlan, BuiltImage, ImageRequest, build_image
from gateway.operations.recorded import Recorded


class ImageOperations:
    """An administrator's acts on images."""

    def __init__(self, builder: ImageBuilder, recorded: Recorded) -> None:
        self._builder = builder
        self._recorded = recorded

    def build(self, request: ImageRequest, plan: BuildPlan, show: Callable[[BuildProgress], None]) -> BuiltImage:
        """Build an image unless one of the same content is there, which is no act. Raises: EngineError."""
        with self._recorded.failing("image.built", profile=request.profile, image=plan.tag):
            built = build_image(request, self._builder, plan, show)
        if built.is_new:
            self._recorded.note("image.built", profile=request.profile, image=built.tag, alias=plan.alias)
        return built
