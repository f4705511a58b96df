"""Signatures, as people see them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from cli_views.common import facts, problem_lines, said

if TYPE_CHECKING:
    from registry.results import Signed
    from registry.signing.trust import Finding, Voucher


def signed(found: Signed) -> None:
    finding = found.finding
    facts(
        [
            ("release", found.ref),
            ("digest", found.digest),
            ("signature", finding.digest + ("" if found.created else " (was there)")),
            ("key", finding.key.fingerprint if finding.key else "none"),
            ("trusted as", ", ".join(finding.signers) or "not asked: no keyring"),
        ]
    )
    problem_lines(found.problems)


def finding_text(finding: Finding) -> str:
    """One signature on one line."""
    who = ", ".join(finding.signers)
    key = finding.key.fingerprint if finding.key else "no key"
    told = f"{finding.status}: {who} {key}" if who else f"{finding.status}: {key}"
    return f"{told} ({finding.reason})" if finding.reason else told


def vouchers(found: Mapping[str, Sequence[Voucher]] | None) -> None:
    """A line for every release that was asked about; nothing without a keyring."""
    for ref, who in (found or {}).items():
        said(f"{ref}: signed by {', '.join(f'{one.signer} ({one.key})' for one in who)}")
