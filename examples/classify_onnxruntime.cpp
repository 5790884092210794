// Classify a picture in C++ with ONNX Runtime.
//
//     torchclas export EfficientNet_lite0 --to onnx --input uint8 -o model.onnx
//     pip install onnxruntime
//     RUNTIME=$(python -c 'import onnxruntime; print(onnxruntime.__path__[0])')
//     ln -s "$RUNTIME"/capi/libonnxruntime.so.* libonnxruntime.so.1
//     g++ -std=c++17 -O2 classify_onnxruntime.cpp -I/usr/include/onnxruntime libonnxruntime.so.1 \
//         -Wl,-rpath,'$ORIGIN' -o classify_onnxruntime
//     ./classify_onnxruntime model.onnx photo.ppm
//
// The library is that of ONNX Runtime's Python package. Its headers, which may be older, are in the archives of its
// releases, and in libonnxruntime-dev of Debian 13.
//
// A model that was exported with `--input uint8` takes the pixels of pictures of any size and prepares them itself. A
// .ppm file is nothing but pixels (`convert photo.jpg photo.ppm`); in a program of yours they come from what decodes its
// pictures, such as cv::imread(path, cv::IMREAD_COLOR_RGB).

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <numeric>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include <onnxruntime_cxx_api.h>

struct Picture {
    int64_t width, height;
    std::vector<uint8_t> pixels;  // height × width × red, green, blue
};

Picture read_ppm(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    std::string kind;
    int64_t width = 0, height = 0, largest = 0;
    file >> kind >> width >> height >> largest;
    if (!file || kind != "P6" || largest != 255) throw std::runtime_error(path + ": not a binary .ppm file of 8 bits");
    file.get();  // the one character before the pixels
    Picture picture{width, height, std::vector<uint8_t>(width * height * 3)};
    if (!file.read(reinterpret_cast<char*>(picture.pixels.data()), picture.pixels.size()))
        throw std::runtime_error(path + ": it is cut off");
    return picture;
}

int main(int count, char** arguments) try {
    if (count != 3) throw std::runtime_error("usage: classify_onnxruntime model.onnx photo.ppm");
    Ort::Env environment;
    Ort::Session session(environment, arguments[1], Ort::SessionOptions());
    Ort::AllocatorWithDefaultOptions allocator;
    std::vector<std::string> labels;
    std::istringstream lines(session.GetModelMetadata().LookupCustomMetadataMapAllocated("labels", allocator).get());
    for (std::string line; std::getline(lines, line);) labels.push_back(line);

    Picture picture = read_ppm(arguments[2]);
    const std::array<int64_t, 4> shape{1, picture.height, picture.width, 3};
    const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    const auto images = Ort::Value::CreateTensor<uint8_t>(
        memory, picture.pixels.data(), picture.pixels.size(), shape.data(), shape.size());
    const char* input = "images";
    const char* output = "logits";
    const auto outputs = session.Run(Ort::RunOptions(), &input, &images, 1, &output, 1);
    const float* logits = outputs[0].GetTensorData<float>();

    std::vector<double> scores(logits, logits + outputs[0].GetTensorTypeAndShapeInfo().GetElementCount());
    const double largest = *std::max_element(scores.begin(), scores.end());
    double sum = 0;
    for (double& score : scores) sum += score = std::exp(score - largest);
    std::vector<size_t> best(scores.size());
    std::iota(best.begin(), best.end(), 0);
    std::sort(best.begin(), best.end(), [&](size_t one, size_t other) { return scores[one] > scores[other]; });
    best.resize(std::min<size_t>(best.size(), 5));
    for (size_t index : best) std::printf("%.6f %s\n", scores[index] / sum, labels.at(index).c_str());
} catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
}
