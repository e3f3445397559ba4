# What every script begins with: the checkout's root, and installing what is missing. To be sourced.
# Nothing here needs the network when nothing is missing.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"

# Gems go into the checkout, for every Gemfile (bundler keeps its settings beside each).
export BUNDLE_PATH=$root/vendor/bundle BUNDLE_SILENCE_ROOT_WARNING=1

say() { printf '\033[1m==> %s\033[0m\n' "$*" >&2; }
fail() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; exit 1; }

build_packages=(build-essential cmake ninja-build pkg-config ruby ruby-dev bundler libevent-dev libnng-dev
  libssl-dev liburing-dev zlib1g-dev)
test_packages=(libcriterion-dev chromium redis-server)
check_packages=(clang-14 libclang-rt-14-dev clang-format cppcheck valgrind)

# The Debian packages that are not installed yet, in one apt call.
install_packages() {
  local missing=() package
  for package in "$@"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && return
  command -v apt-get >/dev/null || fail "these Debian packages are missing and there is no apt-get: ${missing[*]}"
  local as_root=()
  [ "$(id -u)" -eq 0 ] || { command -v sudo >/dev/null || fail "install these as root: apt-get install ${missing[*]}"; as_root=(sudo); }
  say "installing ${missing[*]}"
  "${as_root[@]}" apt-get update -qq
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# The gems of each Gemfile. The demo leaves out those that only tests need, unless they are there already.
install_gems() {
  bundle config set --local path vendor/bundle >/dev/null # for `bundle exec` by hand
  local gemfile
  for gemfile in "$@"; do
    BUNDLE_GEMFILE=$gemfile bundle check >/dev/null 2>&1 && continue
    say "installing the gems of $gemfile"
    BUNDLE_GEMFILE=$gemfile bundle install --quiet --jobs 4 </dev/null
  done
}
install_demo_gems() {
  BUNDLE_GEMFILE=Gemfile bundle check >/dev/null 2>&1 || bundle config set --local without servers:tools >/dev/null
  install_gems Gemfile
}
# The packages of npm that tests/node runs: Node.js as it is here, else Debian's.
install_node_packages() {
  command -v npm >/dev/null || install_packages nodejs npm
  cmp -s tests/node/package-lock.json tests/node/node_modules/.installed && return
  say "installing the packages of tests/node"
  (cd tests/node && npm ci --silent --no-audit --no-fund </dev/null && cp package-lock.json node_modules/.installed)
}
install_test_gems() {
  bundle config unset --local without >/dev/null
  install_gems Gemfile gemfiles/rack2.gemfile
}

# One build at a time in a checkout: a second script waits for the first.
locked() {
  mkdir -p tmp
  flock tmp/build.lock "$@"
}

# build_programs FOLDER [CMAKE OPTION...]: configures and builds; $target: not all of it.
build_programs() {
  local folder=$1
  shift
  locked cmake -S . -B "$folder" -G Ninja "$@" >"$folder.log" 2>&1 || { cat "$folder.log" >&2; fail "cmake failed"; }
  locked cmake --build "$folder" ${target:+--target "$target"} >>"$folder.log" 2>&1 || { tail -n 60 "$folder.log" >&2; fail "building $folder failed"; }
}

build_extension() {
  locked bundle exec rake -s compile >build-extension.log 2>&1 ||
    { tail -n 60 build-extension.log >&2; fail "building the extension failed"; }
}
