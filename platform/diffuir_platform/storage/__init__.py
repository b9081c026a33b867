"""Files in a folder, on S3 or in memory, by URI: reading, writing, listing, locking, and retrying a busy store."""

from .errors import Busy, NotThere, StoreError, translated_errors, without_credentials
from .files import (
    HEAD_BYTES,
    Entry,
    arrow_file_system,
    check_writable,
    entry,
    exists,
    is_file,
    is_folder,
    list_entries,
    list_files,
    open_file,
    read_bytes,
    read_head,
    read_range,
    remove_file,
    remove_folder,
    write_bytes,
    write_new,
    writing,
)
from .hidden import OWN_FOLDER, is_hidden
from .lock import Held, Lock, LockClaim
from .retrying import retry
from .uris import absolute, join, split_uri

__all__ = [
    "HEAD_BYTES",
    "OWN_FOLDER",
    "Busy",
    "Entry",
    "Held",
    "Lock",
    "LockClaim",
    "NotThere",
    "StoreError",
    "absolute",
    "arrow_file_system",
    "check_writable",
    "entry",
    "exists",
    "is_file",
    "is_folder",
    "is_hidden",
    "join",
    "list_entries",
    "list_files",
    "open_file",
    "read_bytes",
    "read_head",
    "read_range",
    "remove_file",
    "remove_folder",
    "retry",
    "split_uri",
    "translated_errors",
    "without_credentials",
    "write_bytes",
    "write_new",
    "writing",
]
