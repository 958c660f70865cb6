# For GNU make, bmake and OpenBSD's make alike: nothing here is particular to
# one of them, and all work is done by the shell. A target is a command, not a
# file; Go knows what has to be built again.
#
# What the tests need to know of their hosts is given in the environment or on
# make's command line, and the binary reads it from its environment:
#
#	LOCAL_ADDR REMOTE_ADDR FAKE_ADDR LOCAL_ADDR6 REMOTE_ADDR6 FAKE_ADDR6
#	GATEWAY_ADDR MIRROR_ADDR GATEWAY_ADDR6 MIRROR_ADDR6
#	REMOTE_SSH SUDO KTRACE SSH_OPTIONS
#
# None of them is assigned here, because all three makes then hand them over by
# themselves and unchanged, whatever characters they contain: POSIX wants the
# variables of the command line in the environment of the commands.
#
#	make			builds ./pfdivert
#	make pfdivert-bpf	builds ./pfdivert-bpf, which has -filter bpf too (Linux)
#	make regress		runs all targets, without REMOTE_SSH on this
#				machine alone (as root, on a BSD)
#	make claims		runs what manuals say of packets handed to user space
#	make kyua		runs suite and claims as FreeBSD's suites are run
#	make check-setup	says what the hosts lack, and how to fix it
#	make run-TARGET		runs one; "make list" shows which there are
#	make dist		builds dist/pfdivert-SYSTEM-ARCHITECTURE for REMOTE
#	make packages		deb, rpm, apk, ipk and tar.gz of the last commit, in dist/packages;
#				for some only with SYSTEMS='linux-amd64 linux-mips'
#	make dist-src		an archive of its source with all modules, and ports
#	make image		an image for Kubernetes, dist/image, as contrib/kubernetes has it
#	make test		all tests, and the lab end to end; takes a few minutes
#	make race		all tests with the race detector; takes a C compiler
#	make check		formatting, a build for each system of dist, vet, staticcheck,
#				and the words and widths of roles/style
#	make faults		breaks the lab on purpose and sees that the targets notice
#	make bench		times the parts and the whole
#	make generate		writes regress.mk anew from the list of targets
#	make kernels		writes docs/kernels.md anew from the runs in docs/kernels
#	make kernel NAME=name	runs all there is, keeps the results there, and does that
#	make install clean	as everywhere; PREFIX, MANDIR and DESTDIR
#	make help		prints this list

all: pfdivert

include regress.mk

GO ?= go
PREFIX ?= /usr/local
MANDIR ?= ${PREFIX}/man

# The shell, not make, asks git, and only when a binary is built. An archive of the source has VERSION.
# Functions are inlined in the packages alone where a run spends its time: 0.5 MB less, and as fast.
HOT = pfconf pfconf/netlink pfconf/nft matrix matrix/script roles/agent roles/socket roles/wire
GO_BUILD = CGO_ENABLED=0 ${GO} build -trimpath -buildvcs=false \
	-gcflags=pfdivert/...=-l ${HOT:%=-gcflags=pfdivert/%=} -ldflags \
	"-s -w -X main.version=$$(sed 's/ .*//' VERSION 2>/dev/null || git describe --always --dirty 2>/dev/null || echo unreleased)"

# With programs of BPF and what assembles them: 1 MB more.
pfdivert-bpf:
	@${GO_BUILD} -tags bpf -o pfdivert-bpf .

pfdivert:
	@echo 'building pfdivert (minutes the first time, seconds later)' >&2
	@${GO_BUILD} -o pfdivert .

SYSTEMS = linux-amd64 linux-arm64 linux-386 linux-arm linux-riscv64 linux-s390x \
	linux-mips linux-mipsle linux-mips64 linux-ppc64le linux-loong64 \
	openbsd-amd64 openbsd-arm64 openbsd-386 freebsd-amd64 freebsd-arm64 freebsd-386
DIST = ${SYSTEMS:%=dist/pfdivert-%}

dist: ${DIST}

# Routers with these processors have no floating point unit.
${DIST}:
	@mkdir -p dist; echo $@; t=$@; t=$${t#dist/pfdivert-}; \
	GOOS=$${t%-*} GOARCH=$${t#*-} GOARM=7,softfloat GOMIPS=softfloat GOMIPS64=softfloat ${GO_BUILD} -o $@ .

packages:
	@GO="${GO}" MAKE="${MAKE}" sh contrib/packages/build packages ${SYSTEMS}

dist-src:
	@GO="${GO}" sh contrib/packages/build source

image: dist/pfdivert-linux-amd64 dist/pfdivert-linux-arm64
	@echo dist/image; ${GO} run -C contrib/kubernetes . ../../dist ../../dist/image amd64 arm64

# On OpenBSD the lines are those of bsd.regress.mk(5).
FORMAT = $$(case $$(uname -s) in OpenBSD) echo -regress;; esac)

regress: pfdivert
	@echo './pfdivert run: the suite, here or with REMOTE_SSH' >&2
	@./pfdivert run ${FORMAT}

claims: pfdivert
	@echo './pfdivert run: what manuals say' >&2
	@./pfdivert run ${FORMAT} '*-divert-*' '*-natlook-*' '*-redirect-*' '*-queue-*' 'inet-to-*' 'inet6-to-*'

${REGRESS_TARGETS} ${CLAIM_TARGETS}: pfdivert
	@t=$@; ./pfdivert run ${FORMAT} "$${t#run-}"

# What kyua is to know of the hosts: KYUA_FLAGS='-v test_suites.pfdivert.REMOTE_SSH=root@host'
kyua: pfdivert-atf
	kyua ${KYUA_FLAGS} test

pfdivert-atf: pfdivert
	@ln -sf pfdivert pfdivert-atf

check-setup: pfdivert
	@./pfdivert check-setup

list: pfdivert
	@./pfdivert list

generate: pfdivert
	@{ sed '/^#/!d' regress.mk && \
	./pfdivert list -names | sed 's/^/REGRESS_TARGETS += run-/' && \
	./pfdivert list -names '*-divert-*' '*-natlook-*' '*-redirect-*' '*-queue-*' 'inet-to-*' 'inet6-to-*' | sed 's/^/CLAIM_TARGETS += run-/'; } >regress.mk.new
	mv regress.mk.new regress.mk

kernels: pfdivert
	./pfdivert kernels docs/kernels/*.json >docs/kernels.md.new
	mv docs/kernels.md.new docs/kernels.md

kernel: pfdivert
	@test -n "$$NAME" || { echo 'error: no NAME is given'; echo 'hint: make kernel NAME=openbsd-7.7'; exit 1; }
	./pfdivert run -json "docs/kernels/$$NAME.json" '*' || test $$? -eq 1
	${MAKE} kernels

# Built from source at this version, so that all see the same findings.
STATICCHECK ?= ${GO} run honnef.co/go/tools/cmd/staticcheck@v0.8.2

# One architecture of each kind: 64 and 32 bits, both orders of bytes. Darwin can be LOCAL's system,
# never REMOTE's.
VET = linux-amd64 linux-arm64 linux-386 linux-s390x openbsd-amd64 openbsd-arm64 openbsd-386 \
	freebsd-amd64 freebsd-arm64 freebsd-386 darwin-arm64

check:
	@unformatted=$$(gofmt -l .) && test -z "$$unformatted" || \
	{ echo "error: not formatted:" $$unformatted; echo "hint: gofmt -w ."; exit 1; }
	@for file in ${DIST}; do \
		system=$${file#dist/pfdivert-}; \
		case " ${VET} " in *" $$system "*) continue ;; esac; \
		echo "${GO} build for $$system"; \
		GOOS=$${system%-*} GOARCH=$${system#*-} ${GO} build -o /dev/null . || exit 1; \
	done
	@for system in ${VET}; do \
		echo "${GO} vet ./... for $$system"; \
		GOOS=$${system%-*} GOARCH=$${system#*-} ${GO} vet ./... || exit 1; \
	done
	${STATICCHECK} ./...
	${GO} test ./roles/style

test: pfdivert
	@GO="${GO}" sh .ci/test

race:
	${GO} test -timeout 40m -race $$(${GO} list ./... | grep -v /roles/style)

faults: pfdivert
	./pfdivert faults

bench: pfdivert
	${GO} test -run '^$$' -bench . -benchmem ./...

# Where bash, zsh and fish look for completions below share.
COMPLETIONS = bash-completion/completions/pfdivert.bash zsh/site-functions/_pfdivert \
	fish/vendor_completions.d/pfdivert.fish

install:
	test -x pfdivert || ${MAKE} pfdivert
	install -d -m 755 "${DESTDIR}${PREFIX}/bin"
	install -m 755 pfdivert "${DESTDIR}${PREFIX}/bin/pfdivert"
	install -d -m 755 "${DESTDIR}${MANDIR}/man1"
	install -m 644 docs/pfdivert.1 "${DESTDIR}${MANDIR}/man1/pfdivert.1"
	@for role in server client packet pf-setup natlook; do \
		ln -sf pfdivert.1 "${DESTDIR}${MANDIR}/man1/pfdivert-$$role.1" || exit 1; \
	done
	@for file in ${COMPLETIONS}; do \
		to="${DESTDIR}${PREFIX}/share/$$file"; \
		install -d -m 755 "$${to%/*}" && install -m 644 "contrib/completions/$${file##*/}" "$$to" || exit 1; \
	done

help:
	@sed -n '/^#	make/,/^$$/s/^#	//p' Makefile

clean:
	rm -rf pfdivert pfdivert-bpf pfdivert-atf dist out

.PHONY: all pfdivert pfdivert-bpf dist ${DIST} packages dist-src image regress ${REGRESS_TARGETS} list generate
.PHONY: claims ${CLAIM_TARGETS} kyua pfdivert-atf
.PHONY: kernels kernel check check-setup test race faults bench install help clean
