# kadmsg. Plain GNU make; a new .c file in one of the folders below just builds.
#
#   make                    library, program, tools           (O=dir, V=1, WERROR=1, CC=…)
#   make test               everything; last line is the total of all groups
#   make unit e2e fuzz-check  one group of it                 (SAN=address,undefined | SAN=thread)
#   make MPI=1              also build/kadmsg-sim-mpi, for mpirun
#   make fuzz               libFuzzer with clang              (FUZZ=name, FUZZ_SECONDS=60 each)
#   make demo bench lint format format-check man install uninstall clean
#
# SAN= builds go to a build directory of their own unless O= is given.

comma := ,
empty :=
space := $(empty) $(empty)

SAN    ?=
O      ?= build$(if $(SAN),-san-$(subst $(comma),-,$(SAN)))
PREFIX ?= /usr/local
DESTDIR ?=
JOBS   ?= $(shell nproc 2>/dev/null || echo 2)
PYTHON ?= /usr/bin/python3
PKG_CONFIG ?= pkg-config
CLANG_FORMAT ?= clang-format
CLANG_TIDY ?= clang-tidy
CPPCHECK ?= cppcheck
FUZZ_SECONDS ?= 60
TEST_TIMEOUT ?= 900
E2E_TIMEOUT  ?= 1200
ifeq ($(origin CC),default)
CC := $(shell command -v gcc >/dev/null 2>&1 && echo gcc || echo cc)
endif
# A continuous integration run turns warnings into errors.
ifneq ($(CI),)
WERROR ?= 1
endif

# ---- flags ------------------------------------------------------------------------------------
msgpack_pc := $(shell $(PKG_CONFIG) --exists msgpack-c 2>/dev/null && echo msgpack-c || echo msgpack)
PKGS := libsodium libsecp256k1 libevent_core libevent_extra libevent_pthreads lmdb $(msgpack_pc) \
        libmicrohttpd libcurl jansson libsystemd hiredis yaml-0.1
PKG_CFLAGS := $(shell $(PKG_CONFIG) --cflags $(PKGS) 2>/dev/null)
PKG_LIBS   := $(shell $(PKG_CONFIG) --libs $(PKGS) 2>/dev/null)
TEST_LIBS  := $(shell $(PKG_CONFIG) --libs cmocka 2>/dev/null) -lm

WARN := -Wall -Wextra -Wshadow -Wpointer-arith -Wstrict-prototypes -Wmissing-prototypes \
        -Wwrite-strings -Wformat=2 -Wvla -Wimplicit-fallthrough -Wundef \
        $(if $(findstring clang,$(CC)),-Wno-string-conversion) $(if $(filter 1,$(WERROR)),-Werror)
ifeq ($(SAN),)
OPT  := -O2 -g -D_FORTIFY_SOURCE=2
else
OPT  := -O1 -g -fno-omit-frame-pointer -fsanitize=$(SAN) -fno-sanitize-recover=all
endif
# -fPIC with hidden visibility costs what -fPIE costs, and serves program and shared library alike.
CODE := -std=gnu11 -D_GNU_SOURCE -I. $(OPT) -fPIC -fvisibility=hidden -fstack-protector-strong \
        -ffunction-sections -fdata-sections -pthread
ALL_CFLAGS  = $(CODE) $(WARN) -Wconversion $(PKG_CFLAGS) $(CPPFLAGS) $(CFLAGS)
# Test programs are not held to -Wconversion; fuzz targets define a function nobody declares.
TEST_CFLAGS = $(CODE) $(WARN) -Wno-missing-prototypes $(PKG_CFLAGS) $(CPPFLAGS) $(CFLAGS)
# What base/arena.h stands in for.
ARENAS := $(patsubst %,-Wl$(comma)--wrap=%,malloc calloc realloc reallocarray free strdup strndup)
ALL_LDFLAGS = -pie -pthread $(if $(SAN),-fsanitize=$(SAN)) -Wl,-z,relro,-z,now -Wl,-z,noexecstack \
              -Wl,--gc-sections -Wl,--as-needed $(ARENAS) $(LDFLAGS)

# ---- sources ----------------------------------------------------------------------------------
LIB_DIRS  := base transport kademlia store compat-http apps node simulator
present    = $(wildcard $(1))
find_c     = $(sort $(shell find $(call present,$(1)) /dev/null -name '*.c' 2>/dev/null))
PROG_SRC  := $(wildcard node/main.c)
MPI_SRC   := $(wildcard node/sim_mpi.c)
LIB_SRC   := $(filter-out $(PROG_SRC) $(MPI_SRC),$(call find_c,$(LIB_DIRS)))
UNIT_ALL  := $(call find_c,tests/unit)
UNIT_SRC  := $(foreach s,$(UNIT_ALL),$(if $(filter test_%,$(notdir $(s))),$(s)))
HELP_SRC  := $(filter-out $(UNIT_SRC),$(UNIT_ALL))
FUZZ_SRC  := $(sort $(wildcard tests/fuzz/*_fuzz.c))
FUZZ_HELP := $(filter-out $(FUZZ_SRC) tests/fuzz/run_corpus.c,$(wildcard tests/fuzz/*.c))
BENCH_SRC := $(sort $(wildcard tests/bench/bench_*.c))
LOAD_SRC  := $(sort $(wildcard tests/bench/load/*.c tests/bench/kadmsg_load.c))
BENCH_HELP := $(filter-out $(BENCH_SRC) $(LOAD_SRC),$(wildcard tests/bench/*.c))
C_FILES   := $(sort $(shell find $(call present,$(LIB_DIRS) tests docs/example) /dev/null \( -name '*.c' -o -name '*.h' \) 2>/dev/null))

obj = $(patsubst %.c,$(O)/obj/%.o,$(1))
LIB_OBJ := $(call obj,$(LIB_SRC))
UNITS   := $(patsubst %.c,$(O)/%,$(UNIT_SRC))
FUZZERS := $(patsubst tests/fuzz/%_fuzz.c,%,$(FUZZ_SRC))
FUZZ_CHECKS := $(patsubst %,$(O)/tests/fuzz/%_check,$(FUZZERS))
BENCHES := $(patsubst tests/bench/%.c,$(O)/bench/%,$(BENCH_SRC))
LIB     := $(O)/libkadmsg.a
TESTLIB := $(O)/libtest.a
PROGS   := $(if $(PROG_SRC),$(O)/kadmsg) $(if $(LOAD_SRC),$(O)/kadmsg-load) $(if $(MPI),$(O)/kadmsg-sim-mpi)

Q := $(if $(V),,@)
say = $(if $(V),@:,@printf '%-5s %s\n' '$(1)' '$(patsubst $(O)/%,%,$@)')
# Recursive builds are parallel even if the caller did not ask for it.
SUBMAKE = @+$(MAKE) --no-print-directory $(if $(findstring -j,$(MAKEFLAGS)),,-j$(JOBS))

.PHONY: stage man all test unit unit-build e2e demo bench bench-build lint format format-check fuzz fuzz-build \
        fuzz-check fuzz-check-build lint-tree lint-unit lint-tidy lint-cppcheck install uninstall clean FORCE
.DELETE_ON_ERROR:
.SUFFIXES:
.SECONDARY:

all: $(LIB) $(PROGS)
	@:

# ---- version and flags: rewritten only when they change ---------------------------------------
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || cat VERSION 2>/dev/null || echo unknown)
$(O)/version.stamp: FORCE
	@mkdir -p $(@D); echo '$(VERSION)' | cmp -s - $@ || echo '$(VERSION)' > $@
$(O)/flags.stamp: FORCE
	@mkdir -p $(@D); echo '$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS)' | cmp -s - $@ || echo '$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS)' > $@
$(O)/obj/base/version.o: $(O)/version.stamp
$(O)/obj/base/version.o: private DEFS := -DKADMSG_VERSION='"$(VERSION)"'

# ---- compile and link -------------------------------------------------------------------------
$(O)/obj/tests/%.o: tests/%.c $(O)/flags.stamp
	$(call say,CC)
	@mkdir -p $(@D)
	$(Q)$(CC) $(TEST_CFLAGS) -MMD -MP -c -o $@ $<
$(O)/obj/%.o: %.c $(O)/flags.stamp
	$(call say,CC)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) $(DEFS) -MMD -MP -c -o $@ $<

# 'q', not 'r': two folders may hold files of one name.
archive = mkdir -p $(@D); rm -f $@; ar qcs $@ $(filter %.o,$^)
link    = $(Q)mkdir -p $(@D) && $(CC) $(ALL_LDFLAGS) -o $@ $(filter %.o,$^) $(filter %.a,$^) $(1) $(PKG_LIBS)

# The list of members is a dependency too, so that a removed file leaves the archive.
$(O)/members.stamp: FORCE
	@mkdir -p $(@D); echo '$(LIB_OBJ)' | cmp -s - $@ || echo '$(LIB_OBJ)' > $@
$(LIB): $(LIB_OBJ) $(O)/members.stamp
	$(call say,AR)
	$(Q)$(archive)
$(TESTLIB): $(call obj,$(HELP_SRC) $(FUZZ_HELP) $(BENCH_HELP))
	$(Q)$(archive)

$(O)/kadmsg: $(call obj,$(PROG_SRC)) $(LIB)
	$(call say,LD)
	$(call link)
# Only where MPI is asked for: the node never links it.
$(O)/obj/node/sim_mpi.o: private DEFS := $(patsubst -I%,-isystem %,$(shell $(PKG_CONFIG) --cflags ompi-c 2>/dev/null))
$(O)/kadmsg-sim-mpi: $(call obj,$(MPI_SRC)) $(LIB)
	$(call say,LD)
	$(call link,$(shell $(PKG_CONFIG) --libs ompi-c))
$(O)/kadmsg-load: $(call obj,$(LOAD_SRC)) $(TESTLIB) $(LIB)
	$(call say,LD)
	$(call link)
$(O)/tests/unit/%: $(O)/obj/tests/unit/%.o $(TESTLIB) $(LIB)
	$(call say,LD)
	$(call link,$(TEST_LIBS))
$(O)/tests/fuzz/%_check: $(O)/obj/tests/fuzz/%_fuzz.o $(O)/obj/tests/fuzz/run_corpus.o $(TESTLIB) $(LIB)
	$(call say,LD)
	$(call link)
$(O)/bench/%: $(O)/obj/tests/bench/%.o $(TESTLIB) $(LIB)
	$(call say,LD)
	$(call link)

-include $(shell find $(O)/obj -name '*.d' 2>/dev/null)

# ---- tests ------------------------------------------------------------------------------------
GROUP_TAG := $(if $(SAN), [$(SAN)])
RUN_TESTS := $(PYTHON) scripts/run_tests.py
RESULTS   ?= $(O)/results

unit-build: $(UNITS)
	@:
unit: $(UNITS)
	@$(RUN_TESTS) run --group 'unit$(GROUP_TAG)' --results $(RESULTS) --timeout $(TEST_TIMEOUT) --logs $(O)/logs $^

fuzz-check-build: $(FUZZ_CHECKS)
	@:
fuzz-check: $(FUZZ_CHECKS)
	@$(RUN_TESTS) run --group 'fuzz-check$(GROUP_TAG)' --results $(RESULTS) --timeout $(TEST_TIMEOUT) --logs $(O)/logs \
	    --corpus tests/fuzz/corpus $^

# What `make install` leaves, for the tests of the library.
stage: all
	@rm -rf $(O)/stage
	@$(MAKE) --no-print-directory -s install DESTDIR=$(abspath $(O))/stage PREFIX=/usr/local

e2e: all stage $(if $(MPI_SRC),$(O)/kadmsg-sim-mpi)
	@KADMSG_SAN='$(SAN)' $(RUN_TESTS) pytest --group 'e2e$(GROUP_TAG)' --results $(RESULTS) --timeout $(E2E_TIMEOUT) --build $(O) tests/e2e

test:
	@scripts/deps.sh
	@rm -rf $(RESULTS)
	$(SUBMAKE) all unit-build fuzz-check-build
	$(if $(SAN),,$(SUBMAKE) SAN=address,undefined O=$(O)-san-address-undefined unit-build fuzz-check-build)
	+@st=0; make='$(MAKE) --no-print-directory RESULTS=$(RESULTS)'; \
	for group in unit fuzz-check e2e; do $$make $$group || st=1; done; \
	$(if $(SAN),,for group in unit fuzz-check; do \
	    $$make SAN=address,undefined O=$(O)-san-address-undefined $$group || st=1; done;) \
	$(RUN_TESTS) summary --results $(RESULTS) || st=1; exit $$st

# ---- fuzzing ----------------------------------------------------------------------------------
ifeq ($(FUZZ_BUILD),1)
$(O)/fuzz/%: $(O)/obj/tests/fuzz/%_fuzz.o $(TESTLIB) $(LIB)
	$(call say,LD)
	$(Q)mkdir -p $(@D) && $(CC) $(ALL_LDFLAGS) -fsanitize=fuzzer -o $@ $(filter %.o,$^) $(filter %.a,$^) $(PKG_LIBS)
endif
fuzz-build: $(patsubst %,$(O)/fuzz/%,$(or $(FUZZ),$(FUZZERS)))
	@:

fuzz:
	$(SUBMAKE) fuzz-build FUZZ_BUILD=1 CC=clang O=$(O)-fuzz SAN=fuzzer-no-link,address,undefined
	@for name in $(or $(FUZZ),$(FUZZERS)); do \
	    mkdir -p $(O)-fuzz/corpus/$$name $(O)-fuzz/crashes; \
	    echo "FUZZ  $$name ($(FUZZ_SECONDS) s)"; \
	    $(O)-fuzz/fuzz/$$name -max_total_time=$(FUZZ_SECONDS) -rss_limit_mb=1024 -timeout=10 -print_final_stats=1 -verbosity=0 \
	        -artifact_prefix=$(O)-fuzz/crashes/$$name- $(O)-fuzz/corpus/$$name tests/fuzz/corpus/$$name || exit 1; \
	done

# ---- bench, demo ------------------------------------------------------------------------------
bench-build: $(BENCHES)
	@:
bench: all $(BENCHES)
	@$(PYTHON) scripts/run_bench.py --build $(O) --version '$(VERSION)' $(if $(OUT),--out '$(OUT)') $(BENCH)

demo:
	@scripts/deps.sh build
	$(SUBMAKE) all
	@$(PYTHON) scripts/demo.py --kadmsg $(O)/kadmsg

# ---- static checks ----------------------------------------------------------------------------
# clang-tidy once per changed file: an object file depends on the headers, its .tidy on the object.
TIDY := $(patsubst %.c,$(O)/tidy/%.tidy,$(LIB_SRC) $(PROG_SRC))

format:
	@$(if $(C_FILES),$(CLANG_FORMAT) -i $(C_FILES))
format-check:
	@bad=''; for f in $(C_FILES); do $(CLANG_FORMAT) --dry-run -Werror $$f 2>/dev/null || bad="$$bad $$f"; done; \
	[ -z "$$bad" ] || { echo "not formatted (make format):$$bad"; exit 1; }

lint: lint-tree
	$(SUBMAKE) format-check lint-unit lint-cppcheck lint-tidy

# The pages of docs/man are written by the program from its command table; a unit test compares.
man: all
	@mkdir -p docs/man && $(O)/kadmsg man docs/man

lint-tree:
	@$(PYTHON) scripts/check_includes.py --self-test && $(PYTHON) scripts/check_includes.py
	@$(PYTHON) scripts/check_outside.py --self-test && $(PYTHON) scripts/check_outside.py
	@$(PYTHON) scripts/check_incidents.py --self-test && $(PYTHON) scripts/check_incidents.py
	@for h in $(filter %.h,$(C_FILES)); do $(CC) $(TEST_CFLAGS) -Werror -fsyntax-only -include $$h -x c /dev/null || exit 1; done
	@mandoc -Tlint -W warning docs/man/*.[1578]

# With the program that was just built, so that ExecStart names something that is there.
lint-unit: all
	@sed 's|@BINDIR@|$(abspath $(O))|' node/kadmsg.service.in > $(O)/lint.service
	@! command -v systemd-analyze >/dev/null || systemd-analyze verify --man=no $(O)/lint.service

$(O)/tidy/%.tidy: %.c $(O)/obj/%.o .clang-tidy
	$(call say,TIDY)
	$(Q)mkdir -p $(@D) && $(CLANG_TIDY) --quiet $< -- $(filter-out -fstack-protector-strong,$(ALL_CFLAGS)) 2>$@.log >$@.out \
	    || { grep -A2 'error:' $@.out || cat $@.log; exit 1; }
	$(Q)touch $@
lint-tidy: $(TIDY)
	@:

CPPCHECK_FLAGS = -q -j $(JOBS) --cppcheck-build-dir=$(O)/cppcheck --error-exitcode=1 --inline-suppr --std=c11 \
    --enable=warning,performance,portability -D_GNU_SOURCE -D__GNUC__ -I.
lint-cppcheck:
	@mkdir -p $(O)/cppcheck
	@$(CPPCHECK) $(CPPCHECK_FLAGS) $(LIB_SRC) $(PROG_SRC) $(LOAD_SRC)

# ---- install ----------------------------------------------------------------------------------
# The library is installed as soon as there is its one public header.
API_H    := $(firstword $(wildcard kadmsg.h */kadmsg.h))
API_SRC  := $(if $(API_H),$(API_H:.h=.c) $(wildcard $(API_H:.h=)_*.c))
MANPAGES := $(sort $(wildcard docs/man/*.[1578]))
SOVERSION := 0
# What the program alone needs (node/node.h, parts) is not linked: a reference to it is an error here.
API_PKGS := $(filter-out libevent_pthreads libmicrohttpd libcurl jansson libsystemd hiredis yaml-0.1,$(PKGS))
API_LIBS := $(shell $(PKG_CONFIG) --libs $(API_PKGS) 2>/dev/null)
BINDIR := $(PREFIX)/bin
LIBDIR := $(PREFIX)/lib
UNITDIR := $(LIBDIR)/systemd/system
MANDIR := $(PREFIX)/share/man
SHAREDIR := $(PREFIX)/share
comp_bash := $(SHAREDIR)/bash-completion/completions/kadmsg
comp_zsh  := $(SHAREDIR)/zsh/site-functions/_kadmsg
comp_fish := $(SHAREDIR)/fish/vendor_completions.d/kadmsg.fish
man_dest = $(MANDIR)/man$(patsubst .%,%,$(suffix $(1)))/$(notdir $(1))

INSTALLED := $(if $(PROG_SRC),$(BINDIR)/kadmsg $(UNITDIR)/kadmsg.service $(comp_bash) $(comp_zsh) $(comp_fish)) $(foreach m,$(MANPAGES),$(call man_dest,$(m))) \
    $(if $(API_H),$(addprefix $(LIBDIR)/,libkadmsg.a libkadmsg.so libkadmsg.so.$(SOVERSION) pkgconfig/kadmsg.pc) \
        $(PREFIX)/include/kadmsg.h)

$(O)/libkadmsg.so.$(SOVERSION): $(call obj,$(API_SRC)) $(LIB)
	$(call say,LD)
	$(Q)$(CC) -shared $(filter-out -pie,$(ALL_LDFLAGS)) -Wl,-soname,$(@F) -Wl,-z,defs -o $@ $(filter %.o %.a,$^) $(API_LIBS)
# One object with the hidden names made local, so that the caller's own functions may have any name.
$(O)/api/kadmsg.o: $(call obj,$(API_SRC)) $(LIB)
	@mkdir -p $(@D)
	$(Q)$(CC) -r -nostdlib -o $@ $(filter %.o %.a,$^) && objcopy --localize-hidden $@
$(O)/api/libkadmsg.a: $(O)/api/kadmsg.o
	$(call say,AR)
	$(Q)$(archive)
# Written by the program that was just built, from its command table.
$(O)/completion/%: $(O)/kadmsg
	$(Q)mkdir -p $(@D) && $(O)/kadmsg completion $* > $@
$(O)/kadmsg.service: node/kadmsg.service.in FORCE
	@mkdir -p $(@D); sed 's|@BINDIR@|$(BINDIR)|' $< > $@
$(O)/kadmsg.pc: Makefile FORCE
	@mkdir -p $(@D); printf '%s\n' 'Name: kadmsg' 'Description: DHT-first node of the DMSG protocols' 'Version: $(VERSION)' \
	    'Requires.private: $(API_PKGS)' 'Libs: -L$(LIBDIR) -lkadmsg' 'Libs.private: -pthread' 'Cflags: -I$(PREFIX)/include' > $@

install: all $(O)/kadmsg.service $(addprefix $(O)/completion/,bash zsh fish) $(if $(API_H),$(O)/libkadmsg.so.$(SOVERSION) $(O)/api/libkadmsg.a $(O)/kadmsg.pc)
ifneq ($(PROG_SRC),)
	install -D -m 755 $(O)/kadmsg $(DESTDIR)$(BINDIR)/kadmsg
	install -D -m 644 $(O)/kadmsg.service $(DESTDIR)$(UNITDIR)/kadmsg.service
	install -D -m 644 $(O)/completion/bash $(DESTDIR)$(comp_bash)
	install -D -m 644 $(O)/completion/zsh $(DESTDIR)$(comp_zsh)
	install -D -m 644 $(O)/completion/fish $(DESTDIR)$(comp_fish)
endif
	$(foreach m,$(MANPAGES),install -D -m 644 $(m) $(DESTDIR)$(call man_dest,$(m)) &&) :
ifneq ($(API_H),)
	install -D -m 644 $(O)/api/libkadmsg.a $(DESTDIR)$(LIBDIR)/libkadmsg.a
	install -D -m 755 $(O)/libkadmsg.so.$(SOVERSION) $(DESTDIR)$(LIBDIR)/libkadmsg.so.$(SOVERSION)
	ln -sf libkadmsg.so.$(SOVERSION) $(DESTDIR)$(LIBDIR)/libkadmsg.so
	install -D -m 644 $(O)/kadmsg.pc $(DESTDIR)$(LIBDIR)/pkgconfig/kadmsg.pc
	install -D -m 644 $(API_H) $(DESTDIR)$(PREFIX)/include/kadmsg.h
endif

uninstall:
	rm -f $(addprefix $(DESTDIR),$(INSTALLED))

clean:
	rm -rf build build-* $(filter-out build,$(O))
