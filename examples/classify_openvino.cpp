// Classify a picture in C++ with OpenVINO, whose Python package has the headers and the libraries.
//
//     torchclas export EfficientNet_lite0 --to openvino --input uint8 -o model.xml
//     pip install openvino
//     OPENVINO=$(python -c 'import openvino; print(openvino.__path__[0])')
//     g++ -std=c++17 -O2 classify_openvino.cpp -I"$OPENVINO/include" "$OPENVINO"/libs/libopenvino.so.* \
//         -Wl,-rpath,"$OPENVINO/libs" -o classify_openvino
//     ./classify_openvino model.xml photo.ppm
//
// A model that was exported with `--input uint8` takes the pixels of pictures of any size and prepares them itself. A
// .ppm file is nothing but pixels (`convert photo.jpg photo.ppm`); in a program of yours they come from what decodes its
// pictures, such as cv::imread(path, cv::IMREAD_COLOR_RGB).

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <numeric>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include <openvino/openvino.hpp>

struct Picture {
    size_t width, height;
    std::vector<uint8_t> pixels;  // height × width × red, green, blue
};

Picture read_ppm(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    std::string kind;
    size_t width = 0, height = 0, largest = 0;
    file >> kind >> width >> height >> largest;
    if (!file || kind != "P6" || largest != 255) throw std::runtime_error(path + ": not a binary .ppm file of 8 bits");
    file.get();  // the one character before the pixels
    Picture picture{width, height, std::vector<uint8_t>(width * height * 3)};
    if (!file.read(reinterpret_cast<char*>(picture.pixels.data()), picture.pixels.size()))
        throw std::runtime_error(path + ": it is cut off");
    return picture;
}

int main(int count, char** arguments) try {
    if (count != 3) throw std::runtime_error("usage: classify_openvino model.xml photo.ppm");
    ov::Core core;
    const auto model = core.read_model(arguments[1]);
    std::vector<std::string> labels;
    std::istringstream lines(model->get_rt_info<std::string>("labels"));
    for (std::string line; std::getline(lines, line);) labels.push_back(line);
    // Some processors would compute in bfloat16 if they were not told otherwise.
    auto compiled = core.compile_model(model, "CPU", ov::hint::inference_precision(ov::element::f32));

    Picture picture = read_ppm(arguments[2]);
    auto request = compiled.create_infer_request();
    request.set_tensor("images", ov::Tensor(ov::element::u8, {1, picture.height, picture.width, 3}, picture.pixels.data()));
    request.infer();
    const ov::Tensor logits = request.get_tensor("logits");

    std::vector<double> scores(logits.data<float>(), logits.data<float>() + logits.get_size());
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
