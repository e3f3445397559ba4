# frozen_string_literal: true

# The gem's extension: adapter/ext and protocol, in one shared object. `rake compile` and `gem install` both
# come here; there is no second recipe.
require "mkmf"

# library, header, function, and the packages that bring it
NEEDED = [
  ["event_core", "event2/event.h", "event_base_new", "libevent-dev", "libevent-devel", "libevent"],
  ["crypto", "openssl/evp.h", "EVP_sha256", "libssl-dev", "openssl-devel", "openssl@3"],
  ["ssl", "openssl/ssl.h", "SSL_new", "libssl-dev", "openssl-devel", "openssl@3"],
  ["z", "zlib.h", "deflate", "zlib1g-dev", "zlib-devel", "zlib"]
].freeze

%w[libevent_core libssl libcrypto zlib].each { |name| pkg_config(name) }
missing = NEEDED.reject { |library, header, function,| have_header(header) && have_library(library, function, header) }
missing.each do |_, header, _, debian, fedora, brew|
  warn "brokerd: #{header} is missing. Debian/Ubuntu: apt install #{debian}; " \
       "Fedora: dnf install #{fedora}; macOS: brew install #{brew}"
end
abort "brokerd: the extension cannot be built without the above" unless missing.empty?

# Without it browsers are written to one by one.
unless have_header("liburing.h") && have_library("uring", "io_uring_queue_init", "liburing.h")
  $defs.delete("-DHAVE_LIBURING_H")
  warn "brokerd: without liburing.h a broadcast costs more processor time. Debian/Ubuntu: apt install liburing-dev; " \
       "Fedora: dnf install liburing-devel"
end

root = File.expand_path("../..", __dir__)
protocol = File.join(root, "protocol")
version = File.read(File.join(root, "adapter/lib/brokerd/version.rb"))[/VERSION = "([^"]+)"/, 1]

$VPATH << protocol
$srcs = Dir[File.join(__dir__, "*.c"), File.join(protocol, "*.c")].sort
$objs = $srcs.map { |path| "#{File.basename(path, '.c')}.o" }
$headers = Dir[File.join(protocol, "*.h")]
$INCFLAGS << " -I#{protocol} -I$(srcdir)"
$defs << "-D_GNU_SOURCE" << %(-DBROKERD_VERSION='"#{version}"')
$warnflags = "-Wall -Wextra -Wshadow"
$CFLAGS << " -std=gnu11 -fvisibility=hidden -fno-common -fstack-protector-strong"
# What Ruby was built with may ask for more warnings than its own headers bear.
$CFLAGS << " -Werror" if enable_config("werror", false)
# For scripts/rspec-asan. An exception of Ruby's leaves functions without telling the sanitizer, which then takes what
# was on their stack for still guarded: it watches the heap alone. (The C tests watch the stack.)
if (kinds = with_config("sanitize"))
  $CFLAGS << " -g -fsanitize=#{kinds} -fno-sanitize-recover=undefined -fno-omit-frame-pointer --param asan-stack=0"
  $LDFLAGS << " -fsanitize=#{kinds}"
end
in_place = File.identical?(Dir.pwd, __dir__) # as RubyGems builds
$CFLAGS << " -g1" if in_place # lines for backtraces; all of -g takes a fifth longer
$LDFLAGS << " -Wl,-z,relro,-z,now" unless RUBY_PLATFORM.include?("darwin")

create_makefile("brokerd/brokerd_ext")
# A changed header compiles everything again.
rules = +"\n$(OBJS): $(LOCAL_HDRS)\n"
# RubyGems builds in the installed gem's own folder and one file at a time: use the machine's cores, and leave
# nothing behind but what was installed.
if in_place
  require "etc"
  rules << <<~MAKE
    MAKEFLAGS += -j#{[Etc.nprocessors, 8].min}
    install: remove-intermediate
    remove-intermediate: install-so install-rb
    \t-$(Q)$(RM) $(OBJS) $(DLLIB) mkmf.log
    .PHONY: remove-intermediate
  MAKE
end
File.write("Makefile", rules, mode: "a")
