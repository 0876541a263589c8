# Builds noray from this folder, and an image of nothing but the static program: docker build -t noray .
#
# The build runs on the builder's own kind of processor and links for the image's, so --platform needs no emulation.
ARG RUST_IMAGE=docker.io/library/rust:1-slim-bookworm
FROM --platform=$BUILDPLATFORM $RUST_IMAGE AS build
ARG TARGETARCH
WORKDIR /noray
COPY . .
RUN set -e; \
    case "$TARGETARCH" in \
        amd64) target=x86_64-unknown-linux-musl ;; \
        arm64) target=aarch64-unknown-linux-musl ;; \
        *) echo "the image can be for amd64 and arm64, not for '$TARGETARCH'" >&2; exit 1 ;; \
    esac; \
    rustup target add "$target"; \
    cargo build --release --locked --bin noray --target "$target"; \
    mv "target/$target/release/noray" /bin/noray

FROM scratch
COPY --from=build /bin/noray /noray
# No root inside either.
USER 65532:65532
# The program reads /noray.conf, if there is one.
WORKDIR /
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s CMD ["/noray", "status", "--check"]
ENTRYPOINT ["/noray"]
