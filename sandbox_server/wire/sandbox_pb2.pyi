from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Tier(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TIER_UNSPECIFIED: _ClassVar[Tier]
    TIER_NONE: _ClassVar[Tier]
    TIER_LANDLOCK: _ClassVar[Tier]
    TIER_NAMESPACE: _ClassVar[Tier]

class Status(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STATUS_UNSPECIFIED: _ClassVar[Status]
    STATUS_OK: _ClassVar[Status]
    STATUS_ERROR: _ClassVar[Status]
    STATUS_CPU_LIMIT: _ClassVar[Status]
    STATUS_WALL_LIMIT: _ClassVar[Status]
    STATUS_MEMORY_LIMIT: _ClassVar[Status]
    STATUS_OUTPUT_LIMIT: _ClassVar[Status]
    STATUS_KILLED: _ClassVar[Status]
TIER_UNSPECIFIED: Tier
TIER_NONE: Tier
TIER_LANDLOCK: Tier
TIER_NAMESPACE: Tier
STATUS_UNSPECIFIED: Status
STATUS_OK: Status
STATUS_ERROR: Status
STATUS_CPU_LIMIT: Status
STATUS_WALL_LIMIT: Status
STATUS_MEMORY_LIMIT: Status
STATUS_OUTPUT_LIMIT: Status
STATUS_KILLED: Status

class Limits(_message.Message):
    __slots__ = ("cpu_ms", "wall_ms", "memory_bytes", "output_bytes", "scratch_bytes", "threads")
    CPU_MS_FIELD_NUMBER: _ClassVar[int]
    WALL_MS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_BYTES_FIELD_NUMBER: _ClassVar[int]
    SCRATCH_BYTES_FIELD_NUMBER: _ClassVar[int]
    THREADS_FIELD_NUMBER: _ClassVar[int]
    cpu_ms: int
    wall_ms: int
    memory_bytes: int
    output_bytes: int
    scratch_bytes: int
    threads: int
    def __init__(self, cpu_ms: _Optional[int] = ..., wall_ms: _Optional[int] = ..., memory_bytes: _Optional[int] = ..., output_bytes: _Optional[int] = ..., scratch_bytes: _Optional[int] = ..., threads: _Optional[int] = ...) -> None: ...

class ExecuteRequest(_message.Message):
    __slots__ = ("request_id", "code", "stdin", "limits", "seed", "no_echo", "files", "minimum_tier", "may_reuse", "fetch_files")
    class FilesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: bytes
        def __init__(self, key: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    STDIN_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    NO_ECHO_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    MINIMUM_TIER_FIELD_NUMBER: _ClassVar[int]
    MAY_REUSE_FIELD_NUMBER: _ClassVar[int]
    FETCH_FILES_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    code: str
    stdin: str
    limits: Limits
    seed: int
    no_echo: bool
    files: _containers.ScalarMap[str, bytes]
    minimum_tier: Tier
    may_reuse: bool
    fetch_files: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, request_id: _Optional[str] = ..., code: _Optional[str] = ..., stdin: _Optional[str] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ..., seed: _Optional[int] = ..., no_echo: _Optional[bool] = ..., files: _Optional[_Mapping[str, bytes]] = ..., minimum_tier: _Optional[_Union[Tier, str]] = ..., may_reuse: _Optional[bool] = ..., fetch_files: _Optional[_Iterable[str]] = ...) -> None: ...

class ExecuteResponse(_message.Message):
    __slots__ = ("request_id", "status", "stdout", "stderr", "last_value", "error_type", "error_line", "exit_code", "signal", "stdout_truncated", "stderr_truncated", "stdout_bytes", "stderr_bytes", "cpu_ms", "wall_ms", "queue_ms", "peak_private_bytes", "rolled_back", "server_id", "session_lost", "reused", "files", "files_too_large", "session_evicted")
    class FilesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: bytes
        def __init__(self, key: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    STDOUT_FIELD_NUMBER: _ClassVar[int]
    STDERR_FIELD_NUMBER: _ClassVar[int]
    LAST_VALUE_FIELD_NUMBER: _ClassVar[int]
    ERROR_TYPE_FIELD_NUMBER: _ClassVar[int]
    ERROR_LINE_FIELD_NUMBER: _ClassVar[int]
    EXIT_CODE_FIELD_NUMBER: _ClassVar[int]
    SIGNAL_FIELD_NUMBER: _ClassVar[int]
    STDOUT_TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    STDERR_TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    STDOUT_BYTES_FIELD_NUMBER: _ClassVar[int]
    STDERR_BYTES_FIELD_NUMBER: _ClassVar[int]
    CPU_MS_FIELD_NUMBER: _ClassVar[int]
    WALL_MS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_MS_FIELD_NUMBER: _ClassVar[int]
    PEAK_PRIVATE_BYTES_FIELD_NUMBER: _ClassVar[int]
    ROLLED_BACK_FIELD_NUMBER: _ClassVar[int]
    SERVER_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_LOST_FIELD_NUMBER: _ClassVar[int]
    REUSED_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    FILES_TOO_LARGE_FIELD_NUMBER: _ClassVar[int]
    SESSION_EVICTED_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    status: Status
    stdout: str
    stderr: str
    last_value: str
    error_type: str
    error_line: int
    exit_code: int
    signal: int
    stdout_truncated: bool
    stderr_truncated: bool
    stdout_bytes: int
    stderr_bytes: int
    cpu_ms: int
    wall_ms: int
    queue_ms: int
    peak_private_bytes: int
    rolled_back: bool
    server_id: str
    session_lost: bool
    reused: bool
    files: _containers.ScalarMap[str, bytes]
    files_too_large: _containers.RepeatedScalarFieldContainer[str]
    session_evicted: bool
    def __init__(self, request_id: _Optional[str] = ..., status: _Optional[_Union[Status, str]] = ..., stdout: _Optional[str] = ..., stderr: _Optional[str] = ..., last_value: _Optional[str] = ..., error_type: _Optional[str] = ..., error_line: _Optional[int] = ..., exit_code: _Optional[int] = ..., signal: _Optional[int] = ..., stdout_truncated: _Optional[bool] = ..., stderr_truncated: _Optional[bool] = ..., stdout_bytes: _Optional[int] = ..., stderr_bytes: _Optional[int] = ..., cpu_ms: _Optional[int] = ..., wall_ms: _Optional[int] = ..., queue_ms: _Optional[int] = ..., peak_private_bytes: _Optional[int] = ..., rolled_back: _Optional[bool] = ..., server_id: _Optional[str] = ..., session_lost: _Optional[bool] = ..., reused: _Optional[bool] = ..., files: _Optional[_Mapping[str, bytes]] = ..., files_too_large: _Optional[_Iterable[str]] = ..., session_evicted: _Optional[bool] = ...) -> None: ...

class BatchError(_message.Message):
    __slots__ = ("code", "message", "retry_after_ms")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    code: int
    message: str
    retry_after_ms: int
    def __init__(self, code: _Optional[int] = ..., message: _Optional[str] = ..., retry_after_ms: _Optional[int] = ...) -> None: ...

class BatchResponse(_message.Message):
    __slots__ = ("request_id", "response", "error")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    response: ExecuteResponse
    error: BatchError
    def __init__(self, request_id: _Optional[str] = ..., response: _Optional[_Union[ExecuteResponse, _Mapping]] = ..., error: _Optional[_Union[BatchError, _Mapping]] = ...) -> None: ...

class CreateSessionRequest(_message.Message):
    __slots__ = ("limits", "seed", "idle_ttl_ms", "minimum_tier", "no_checkpoint")
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    IDLE_TTL_MS_FIELD_NUMBER: _ClassVar[int]
    MINIMUM_TIER_FIELD_NUMBER: _ClassVar[int]
    NO_CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    limits: Limits
    seed: int
    idle_ttl_ms: int
    minimum_tier: Tier
    no_checkpoint: bool
    def __init__(self, limits: _Optional[_Union[Limits, _Mapping]] = ..., seed: _Optional[int] = ..., idle_ttl_ms: _Optional[int] = ..., minimum_tier: _Optional[_Union[Tier, str]] = ..., no_checkpoint: _Optional[bool] = ...) -> None: ...

class Session(_message.Message):
    __slots__ = ("session_id", "server_id")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    SERVER_ID_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    server_id: str
    def __init__(self, session_id: _Optional[str] = ..., server_id: _Optional[str] = ...) -> None: ...

class SessionExecuteRequest(_message.Message):
    __slots__ = ("session_id", "request_id", "code", "no_echo", "cpu_ms", "wall_ms")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    NO_ECHO_FIELD_NUMBER: _ClassVar[int]
    CPU_MS_FIELD_NUMBER: _ClassVar[int]
    WALL_MS_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    request_id: str
    code: str
    no_echo: bool
    cpu_ms: int
    wall_ms: int
    def __init__(self, session_id: _Optional[str] = ..., request_id: _Optional[str] = ..., code: _Optional[str] = ..., no_echo: _Optional[bool] = ..., cpu_ms: _Optional[int] = ..., wall_ms: _Optional[int] = ...) -> None: ...

class ForkSessionRequest(_message.Message):
    __slots__ = ("session_id",)
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    def __init__(self, session_id: _Optional[str] = ...) -> None: ...

class CloseSessionRequest(_message.Message):
    __slots__ = ("session_id",)
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    def __init__(self, session_id: _Optional[str] = ...) -> None: ...

class CloseSessionResponse(_message.Message):
    __slots__ = ("existed",)
    EXISTED_FIELD_NUMBER: _ClassVar[int]
    existed: bool
    def __init__(self, existed: _Optional[bool] = ...) -> None: ...

class InfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class InfoResponse(_message.Message):
    __slots__ = ("server_id", "version", "tier", "landlock_abi", "architecture", "python_version", "packages", "default_limits", "maximum_limits", "slots", "running", "queued", "queue_capacity", "sessions", "session_capacity", "code_bytes_limit", "flood_bytes", "remarks", "session_idle_ms")
    class PackagesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    SERVER_ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    LANDLOCK_ABI_FIELD_NUMBER: _ClassVar[int]
    ARCHITECTURE_FIELD_NUMBER: _ClassVar[int]
    PYTHON_VERSION_FIELD_NUMBER: _ClassVar[int]
    PACKAGES_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_LIMITS_FIELD_NUMBER: _ClassVar[int]
    MAXIMUM_LIMITS_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    QUEUE_CAPACITY_FIELD_NUMBER: _ClassVar[int]
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    SESSION_CAPACITY_FIELD_NUMBER: _ClassVar[int]
    CODE_BYTES_LIMIT_FIELD_NUMBER: _ClassVar[int]
    FLOOD_BYTES_FIELD_NUMBER: _ClassVar[int]
    REMARKS_FIELD_NUMBER: _ClassVar[int]
    SESSION_IDLE_MS_FIELD_NUMBER: _ClassVar[int]
    server_id: str
    version: str
    tier: Tier
    landlock_abi: int
    architecture: str
    python_version: str
    packages: _containers.ScalarMap[str, str]
    default_limits: Limits
    maximum_limits: Limits
    slots: int
    running: int
    queued: int
    queue_capacity: int
    sessions: int
    session_capacity: int
    code_bytes_limit: int
    flood_bytes: int
    remarks: _containers.RepeatedScalarFieldContainer[str]
    session_idle_ms: int
    def __init__(self, server_id: _Optional[str] = ..., version: _Optional[str] = ..., tier: _Optional[_Union[Tier, str]] = ..., landlock_abi: _Optional[int] = ..., architecture: _Optional[str] = ..., python_version: _Optional[str] = ..., packages: _Optional[_Mapping[str, str]] = ..., default_limits: _Optional[_Union[Limits, _Mapping]] = ..., maximum_limits: _Optional[_Union[Limits, _Mapping]] = ..., slots: _Optional[int] = ..., running: _Optional[int] = ..., queued: _Optional[int] = ..., queue_capacity: _Optional[int] = ..., sessions: _Optional[int] = ..., session_capacity: _Optional[int] = ..., code_bytes_limit: _Optional[int] = ..., flood_bytes: _Optional[int] = ..., remarks: _Optional[_Iterable[str]] = ..., session_idle_ms: _Optional[int] = ...) -> None: ...
