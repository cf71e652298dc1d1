#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Shows where sources differ from .clang-format, and fails if any does; `scripts/format.sh --fix` rewrites them instead.
set -euo pipefail
cd "$(dirname "$0")/.."

# Versions of clang-format disagree: the repository is formatted by 14.
formatter=$(command -v clang-format-14 || command -v clang-format)
"$formatter" --version | grep -q "version 14\." || { echo "clang-format 14 is needed: $("$formatter" --version)"; exit 1; }

arguments=(--dry-run -Werror)
[ "${1:-}" = --fix ] && arguments=(-i)
git ls-files -z --cached --others --exclude-standard -- '*.h' '*.cpp' '*.cu' '*.cuh' |
  xargs -0 -r -n 16 -P 2 "$formatter" "${arguments[@]}"
