#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Shows where sources differ from .clang-format, and fails if any does; `scripts/format.sh --fix` rewrites them instead. Exits
# with 77 where it cannot look.
set -euo pipefail
cd "${0%/*}/.."

# Versions of clang-format disagree: the repository is formatted by 14.
formatter=$(command -v clang-format-14 || command -v clang-format || true)
version=none
[ -z "$formatter" ] || version=$("$formatter" --version)
case "$version" in
  *"version 14."*) ;;
  *) echo "skipped: clang-format 14 is needed; there is: $version"; exit 77 ;;
esac

arguments=(--dry-run -Werror)
[ "${1:-}" = --fix ] && arguments=(-i)
git rev-parse --git-dir >/dev/null 2>&1 || { echo "skipped: this is no clone, so that git cannot say which files are lawn's"; exit 77; }
git ls-files -z --cached --others --exclude-standard -- '*.h' '*.cpp' '*.cu' '*.cuh' |
  while IFS= read -r -d '' file; do [ ! -e "$file" ] || printf '%s\0' "$file"; done | # not what was just removed
  xargs -0 -r -n 16 -P 2 "$formatter" "${arguments[@]}"
