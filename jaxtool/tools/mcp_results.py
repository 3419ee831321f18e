"""What an MCP server answers to a call, as the collector takes it. Needs the package `mcp`."""

import json
from typing import Any

import mcp_types as types

from jaxtool.core.types import ToolResult, ToolStatus

ERROR_TYPE = "ToolError"  # of a result that the server calls an error


def tool_result(answer: types.CallToolResult, max_chars: int) -> ToolResult:
    """Its texts, a line for each block; what is no text is named; the structured content if there is no text.

    Examples: two texts "a" and "b" are "a\\nb"; an image is "[image/png, 2048 bytes of base64: not shown]";
    no content beside the structured {"sum": 3} is '{"sum": 3}'.
    """
    shown = [_shown(block) for block in answer.content]
    has_text = any(isinstance(block, types.TextContent) for block in answer.content)
    if answer.structured_content is not None and not has_text:
        shown.insert(0, json.dumps(answer.structured_content, ensure_ascii=False))
    text = "\n".join(shown)
    is_cut = len(text) > max_chars
    text = text[:max_chars]
    if answer.is_error:
        return ToolResult(
            status=ToolStatus.ERROR,
            stderr=text or ERROR_TYPE,
            error_type=ERROR_TYPE,
            is_truncated=is_cut,
        )
    return ToolResult(status=ToolStatus.OK, stdout=text, is_truncated=is_cut)


def _shown(block: Any) -> str:
    if isinstance(block, types.TextContent):
        return block.text
    if isinstance(block, types.ImageContent | types.AudioContent):
        return f"[{block.mime_type}, {len(block.data)} bytes of base64: not shown]"
    if isinstance(block, types.EmbeddedResource):
        resource = block.resource
        if isinstance(resource, types.TextResourceContents):
            return resource.text
        return f"[{resource.uri}, {len(resource.blob)} bytes of base64: not shown]"
    if isinstance(block, types.ResourceLink):
        return f"[{block.uri}: not shown]"
    return "[content of an unknown kind: not shown]"
