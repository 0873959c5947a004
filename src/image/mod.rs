//! Images: sources, manifests, configs, layers as streams.
