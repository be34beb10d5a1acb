"""Audit: do the recorded settings agree with the pictures, and are the pictures as they were recorded?

The folder is not named ``audit``, for a subpackage of that name would replace the function `cimp_core.audit` as soon as
anything imported it.
"""

from .lab import calibrate
from .report import AuditReport
from .run import audit
from .verdict import CheckAudit, ImageAudit, SettingAudit

__all__ = ["AuditReport", "CheckAudit", "ImageAudit", "SettingAudit", "audit", "calibrate"]
