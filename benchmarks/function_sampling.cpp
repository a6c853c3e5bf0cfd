// Random networks from n bits to one, as plain loops: n_functions, seed and the sizes of the layers are arguments.
// Prints the seconds of processor time, the number of distinct functions, and how many samples are constant.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <random>
#include <string>
#include <unordered_map>
#include <vector>

int main(int argc, char** argv) {
    long n_functions = std::atol(argv[1]);
    std::mt19937 generator(std::atol(argv[2]));
    std::normal_distribution<float> normal;
    std::vector<int> sizes;
    for (int i = 3; i < argc; i++) sizes.push_back(std::atoi(argv[i]));
    int n_inputs = sizes[0], n_layers = sizes.size() - 1;
    std::vector<std::vector<float>> weights(n_layers), biases(n_layers);
    std::unordered_map<std::string, long> counts;
    std::clock_t began = std::clock();
    for (long f = 0; f < n_functions; f++) {
        for (int l = 0; l < n_layers; l++) {
            weights[l].resize(sizes[l] * sizes[l + 1]);
            biases[l].resize(sizes[l + 1]);
            float scale = 1 / std::sqrt((float)sizes[l]);
            for (float& w : weights[l]) w = scale * normal(generator);
            for (float& b : biases[l]) b = normal(generator);
        }
        std::string table(1 << n_inputs, '0');
        std::vector<float> before, after;
        for (int x = 0; x < 1 << n_inputs; x++) {
            before.resize(n_inputs);
            for (int i = 0; i < n_inputs; i++) before[i] = x >> (n_inputs - 1 - i) & 1;
            for (int l = 0; l < n_layers; l++) {
                after.resize(sizes[l + 1]);
                for (int k = 0; k < sizes[l + 1]; k++) {
                    float sum = biases[l][k];
                    for (int j = 0; j < sizes[l]; j++) sum += weights[l][k * sizes[l] + j] * before[j];
                    after[k] = l < n_layers - 1 && sum < 0 ? 0 : sum;
                }
                before.swap(after);
            }
            if (before[0] > 0) table[x] = '1';
        }
        counts[table]++;
    }
    double seconds = double(std::clock() - began) / CLOCKS_PER_SEC;
    long constant = 0;
    for (char bit : {'0', '1'}) {
        auto found = counts.find(std::string(1 << n_inputs, bit));
        if (found != counts.end()) constant += found->second;
    }
    std::printf("%.6f %zu %ld\n", seconds, counts.size(), constant);
}
