#!/bin/sh
# Removes from installed packages what serving never loads: trim.sh SITE_PACKAGES cpu|gpu
# Tests, headers, test programs and PyTorch's compiler; for the CPU also what OpenVINO has for other devices and for
# reading other formats; symbols that only a debugger reads.
set -eu
cd "$1"
rm -rf torch/include torch/test torch/share torch/_inductor openvino/include
# Of torchvision only the version is read, of setuptools nothing.
rm -rf torchvision torchvision.libs setuptools setuptools-* _distutils_hack distutils-precedence.pth
find . \( -name '*.pyi' -o -name '*.pyx' -o -name '*.h' -o -name '*.hpp' \) -delete
find torch/bin torch/lib \( -name 'test_*' -o -name 'protoc*' -o -name 'lib*_test.so' \) -delete
find torch/testing/_internal -type f ! -name logging_tensor.py ! -name common_dtype.py ! -name __init__.py -delete
find . -type d -name tests -prune -exec rm -rf {} +
if [ "$2" = cpu ]; then
    rm -f openvino/libs/cache.json
    for part in intel_gpu_plugin intel_npu_plugin onnx_frontend tensorflow_frontend \
        tensorflow_lite_frontend paddle_frontend gguf_frontend jax_frontend; do
        rm -f "openvino/libs/libopenvino_$part.so"*
    done
fi
find torch/lib/libtorch_cpu.so torch/lib/libtorch_python.so uvloop av -name '*.so' \
    -exec strip --strip-unneeded {} +
# Loading it afterwards writes again the bytecode of what is loaded.
find torch ultralytics -type d -name __pycache__ -prune -exec rm -rf {} +
